"""Whether a server can listen at an address."""

import socket

LARGEST_PORT = 65535


def check_address(host: str, port: int | None) -> None:
    """Raises OSError or ValueError if a server cannot listen there, so that it fails before a model is loaded.

    Args:
        port: None for any.
    """
    if port is not None and port > LARGEST_PORT:
        raise ValueError(f"port {port} does not exist; the largest is {LARGEST_PORT}")
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as error:
        where = host if port is None else f"{host}, port {port}"
        raise OSError(f"cannot listen at {where}: {error.strerror}; choose another --host or --port") from error
