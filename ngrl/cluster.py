"""Ray, started on this machine or connected to, for sweeps and environments alike. No TensorFlow is imported here."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from ngrl.messages import reason

# Ray takes the loopback address for that of the machine then, and listens nowhere else, as it does on macOS.
# Where this process is killed, what is left of Ray's own waits for the second number of seconds before it ends.
_LOCAL_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
_CONNECT_S = 10.0
# The first frame of either side of an HTTP/2 connection is one of settings, here an empty one; its type is byte 3.
_HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS


class RayUnavailableError(RuntimeError):
    """Ray isn't installed or doesn't answer; the message is one line."""


class _Connection:
    """What `connected` has opened, and how many use it."""

    users = 0
    is_own = False
    address: str | None = None


_connection = _Connection()


@contextlib.contextmanager
def connected(address: str | None, cpus: int, gpus: int, user: str) -> Iterator[None]:
    """Ray, started or connected to; it ends with the last that uses it.

    Where the program has started or connected to Ray before, that one is taken, and left as it is.

    Args:
      address: `HOST:PORT` of a cluster's head, "auto" for the one of this machine; None starts Ray on this machine, for
        this process alone and on the loopback address.
      cpus: How many processors a Ray that is started may give away; nothing is bound to them.
      gpus: The same of graphics cards.
      user: Who needs Ray, for the message where it isn't installed.

    Raises:
      RayUnavailableError: There is no Ray, or it is connected to another address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ.update(_LOCAL_SETTINGS)  # before Ray is imported
    else:
        check_address(address)
    try:
        import ray
    except ImportError as error:
        raise RayUnavailableError(f"{user} need Ray: pip install 'ngrl[sweep]'") from error
    if not ray.is_initialized():
        _open(address, cpus, gpus)
        _connection.is_own, _connection.address = True, address
    elif _connection.is_own and address != _connection.address:
        raise RayUnavailableError(f"no Ray at {address}: this process is connected to {_connection.address} already")
    _connection.users += 1
    try:
        yield
    finally:
        _connection.users -= 1
        if _connection.is_own and not _connection.users:
            _connection.is_own = False
            ray.shutdown()


def _open(address: str | None, cpus: int, gpus: int) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise RayUnavailableError(f"no Ray {where}: {reason(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray puts its own in place, which aborts the process


def check_address(address: str) -> None:
    """See that a gRPC server, as Ray is, answers at `host:port`; Ray itself would wait for minutes, or for ever.

    Raises:
      RayUnavailableError: None does.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HTTP2_GREETING)
                if connection.recv(len(_HTTP2_SETTINGS), socket.MSG_WAITALL)[3:4] != _HTTP2_SETTINGS[3:4]:
                    raise RayUnavailableError(f"no Ray at {address}: what answers there is not Ray")
    except (OSError, ValueError, OverflowError) as error:
        raise RayUnavailableError(f"no Ray at {address}: {reason(error)}") from error
