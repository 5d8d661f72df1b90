"""What the DDS cloud may not do for its caller: one exception for each thing a program may want to tell apart.

All are `OSError`s, so that a script ends with their one line and status 2. No message ever holds the token.
"""

__all__ = ["BudgetError", "DDSError", "QuotaError", "RefusedError", "TaskFailedError", "TokenError"]


class DDSError(OSError):
    """The service did not answer, or not in a form that can be read."""


class TokenError(DDSError):
    """The service does not know the token."""


class QuotaError(DDSError):
    """What the token may ask for is used up at the service."""


class BudgetError(DDSError):
    """The caller's own limit of requests is reached; nothing was sent."""


class RefusedError(DDSError):
    """The service refuses the request itself; asking again as it is does not help."""


class TaskFailedError(DDSError):
    """The service took the task and could not do it, or says nothing of use about it."""
