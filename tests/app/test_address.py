"""Addresses at which a server can listen, and others."""

import socket

import pytest

from mrcnn.app.address import check_address


def test_a_free_address_is_left_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for _ in range(2):
        check_address("127.0.0.1", port)
    check_address("localhost", None)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine(host):
    with pytest.raises(OSError, match=f"cannot listen at {host}: .*; choose another --host or --port"):
        check_address(host, None)


def test_a_port_that_is_taken_or_does_not_exist():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1, port {port}: Address already in use"):
            check_address("127.0.0.1", port)
    with pytest.raises(ValueError, match="port 70000 does not exist; the largest is 65535"):
        check_address("127.0.0.1", 70_000)
