"""The command line `mrcnn`, one file per command.

A command is a module with a docstring (its help: what it does, then examples), `add_arguments(parser)`, and
`run(arguments)`, which returns the `--json` output, or an `Outcome`. `mrcnn.cli.main.COMMANDS` lists them.
"""
