"""Lets the processes of one training find each other before TensorFlow waits for them.

TensorFlow waits forever for a worker that was never started, and cannot be interrupted.
"""

import json
import os
import socket
import time

HELLO = b"mrcnn worker %d of %d\n"
GO = b"go\n"
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def read_cluster() -> tuple[list[str], int]:
    """Addresses "host:port" of all workers, the chief's first, and this process's index in them, from TF_CONFIG.

    Raises ValueError if the variable is not set or invalid.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        chiefs, workers = (list(config["cluster"].get(job, ())) for job in ("chief", "worker"))
        kind, index = config["task"]["type"], int(config["task"]["index"])
        place = {"chief": 0, "worker": len(chiefs)}[kind] + index
        addresses = chiefs + workers
        [_split(address) for address in addresses]
        if not 0 <= place < len(addresses):
            raise ValueError(f"there is no {kind} {index}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'DISTRIBUTION = "multi_worker" needs the environment variable TF_CONFIG in every process, '
            f"such as {EXAMPLE}; got {text!r} ({type(error).__name__}: {error})."
        ) from error
    return addresses, place


def wait_for_all(addresses: list[str], index: int, timeout: float) -> None:
    """Returns on every worker once all have called it; the first worker listens at its address for the others.

    Raises TimeoutError after `timeout` seconds, naming the missing workers, and OSError if the address cannot be used.
    """
    deadline = time.monotonic() + timeout
    if index == 0:
        _gather(addresses, deadline, timeout)
    else:
        _report(addresses, index, deadline, timeout)


def _gather(addresses: list[str], deadline: float, timeout: float) -> None:
    here: dict[int, socket.socket] = {}
    hellos = {HELLO % (i, len(addresses)): i for i in range(1, len(addresses))}
    with socket.create_server(("", _split(addresses[0])[1])) as server:
        try:
            while len(here) < len(hellos):
                missing = [f"{i} ({addresses[i]})" for i in hellos.values() if i not in here]
                server.settimeout(_left(deadline, f"worker {', '.join(missing)}", timeout))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                index = hellos.get(_line(connection))
                if index is None:
                    connection.close()  # not one of the workers
                else:
                    here[index] = connection
            for connection in here.values():
                connection.sendall(GO)
            for connection in here.values():
                _line(connection)  # the others close first, so that the port is free at once
        finally:
            for connection in here.values():
                connection.close()


def _report(addresses: list[str], index: int, deadline: float, timeout: float) -> None:
    while True:
        try:
            with socket.create_connection(_split(addresses[0]), timeout=5) as connection:
                connection.sendall(HELLO % (index, len(addresses)))
                connection.settimeout(_left(deadline, "the other workers", timeout))
                if connection.recv(len(GO)) == GO:
                    return
        except OSError:
            pass
        _left(deadline, f"worker 0 ({addresses[0]}), or other workers that it waits for,", timeout)
        time.sleep(0.2)


def _line(connection: socket.socket) -> bytes:
    """The line that a peer sends within a few seconds, or nothing."""
    try:
        connection.settimeout(5)
        return connection.recv(100)
    except OSError:
        return b""


def _left(deadline: float, whom: str, timeout: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(
            f"{whom} did not connect within {timeout:.0f} seconds. Start the same program in every process "
            "that TF_CONFIG names; each needs its own task index, and its port must be open to the others."
        )
    return left


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
