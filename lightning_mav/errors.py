"""The kinds of error a user can cause, each with the exit code the command line ends in."""


class MavError(Exception):
    """Base of all errors a user can cause; the message is one line that names the file or key, and the fix."""

    exit_code = 1


class ConfigError(MavError):
    """A wrong argument or configuration key."""

    exit_code = 2


class DataError(MavError):
    """An image, video, caption list or folder that cannot be used."""

    exit_code = 3


class CheckpointError(MavError):
    """A missing, damaged or mismatching checkpoint or model folder."""

    exit_code = 4


class MachineError(MavError):
    """Something the machine lacks: disk, memory, permission, device, package."""

    exit_code = 5


class NumericError(MavError):
    """A loss or gradient that is not finite."""

    exit_code = 6


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on any device; by name, because torch need not be imported."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def known(error: BaseException) -> BaseException:
    """Return the error of ours that caused ``error``, if one did: the option parser wraps what constructors raise."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, MavError):
        cause = cause.__cause__
    return cause or error
