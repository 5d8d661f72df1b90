"""The HTTP protocol of the DDS cloud: a task is started, then asked about until it is done.

Addresses, headers and states are those of `dds-cloudapi-sdk` (0.5.3). Its own functions that send are not used: they
read no HTTP status and no Retry-After, and tag what they report to a crash-report service with the token. For the same
reason importing this module keeps the SDK from starting its crash reporter.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import requests
import sentry_sdk
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from grounded_sam2 import plain_json
from grounded_sam2.detectors.dds.cache import is_task_name
from grounded_sam2.detectors.dds.errors import (
    BudgetError,
    DDSError,
    QuotaError,
    RefusedError,
    TaskFailedError,
    TokenError,
)
from sam2.shown import shown, source_name

__all__ = ["DDSService"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # of one request, the first included
FIRST_PAUSE_S = 1.0  # before the second attempt, doubled with each further one
LONGEST_PAUSE_S = 120.0  # that the service may ask for
FIRST_POLL_S = 0.25  # between two looks at a task, half as long again with each further one
LONGEST_POLL_S = 2.0
DEADLINES = 4  # times the time-out of a request, until its answer must have ended
MOST_BYTES = 64 * 2**20  # of an answer
_MOST_WORDS = 300  # characters of what the service says
_PASSING_STATUS = frozenset({408, 425, 429})  # and all from 500 on
_QUOTA = re.compile(r"quota|balance|credit|arrears|余额|额度", re.IGNORECASE)
_TOKEN = re.compile(r"\btoken\b|unauthori[sz]ed|authentication", re.IGNORECASE)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def _no_crash_reporter() -> Iterator[None]:
    """On import the SDK starts a crash reporter with hooks in the whole process, unless one is active."""
    scope = sentry_sdk.get_global_scope()
    former = scope.client
    if not sentry_sdk.get_client().is_active():
        scope.set_client(sentry_sdk.Client(dsn="", default_integrations=False))
    try:
        yield
    finally:
        scope.set_client(former)


with _no_crash_reporter():
    from dds_cloudapi_sdk import Config, TaskStatus
    from dds_cloudapi_sdk.tasks.base import ErrCode
    from dds_cloudapi_sdk.tasks.v2_task import V2Task


class _PassingError(Exception):
    """What may be over at the next attempt.

    Attributes:
        pause_s: seconds the service asks to wait before it; 0 when it asks for none.
    """

    def __init__(self, problem: str, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


class DDSService:
    """One account at the DDS cloud.

    Args:
        token: of the account; kept in memory only.
        endpoint: address of the service, with or without "https://"; None takes the SDK's.
        request_timeout_s: seconds that one HTTP request may go without an answer.
        task_timeout_s: seconds that a task may take.
        max_requests: tasks that may be started; None does not limit them.

    Attributes:
        num_requests: tasks that were started, or may have been. Repeated attempts carry the same idempotency key and
            count once, and looking at a task does not count.

    Raises:
        ValueError: a token or an endpoint that can be none.
    """

    def __init__(
        self,
        token: str,
        *,
        endpoint: str | None = None,
        request_timeout_s: float = 30.0,
        task_timeout_s: float = 180.0,
        max_requests: int | None = None,
    ) -> None:
        if not (token.isascii() and token.isprintable() and token and " " not in token):
            raise ValueError("the DDS token has spaces or characters that no token has, or is empty")
        self._config = Config(token)
        self._config.endpoint = self.endpoint = _full_address(endpoint or self._config.endpoint)
        self._session = requests.Session()
        self.request_timeout_s = request_timeout_s
        self.task_timeout_s = task_timeout_s
        self.max_requests = max_requests
        self.num_requests = 0

    def start(self, api_path: str, api_body: Mapping[str, Any]) -> str:
        """Start a task.

        Args:
            api_path: of the task's kind, "/v2/task/dinox/detection".
            api_body: what the kind of task takes.

        Returns:
            The name under which the service knows the task.

        Raises:
            BudgetError: `max_requests` are used up; nothing was sent.
            DDSError: the service did not take it; the subclass tells why.
        """
        if self.max_requests is not None and self.num_requests >= self.max_requests:
            raise BudgetError(f"the budget of {self.max_requests} requests to the DDS cloud is used up")
        self.num_requests += 1
        task = self._task(api_path, api_body)
        body = json.dumps(task.api_body).encode()
        task_uuid = self._ask("POST", task.api_trigger_url, task.trigger_headers, body).get("task_uuid")
        if not is_task_name(task_uuid):
            raise DDSError(f"{self.endpoint} started a task and did not name it")
        return task_uuid

    def wait(self, task_uuid: str) -> dict[str, Any]:
        """Look at a task until it is done.

        Returns:
            Its result.

        Raises:
            TaskFailedError: the service could not do it.
            DDSError: it is not done in time, or the service cannot be asked; the subclass tells why.
        """
        task = self._task()
        task.task_uuid = task_uuid
        deadline = time.monotonic() + self.task_timeout_s
        pause_s = FIRST_POLL_S
        while True:
            state = self._ask("GET", task.api_check_url, task.headers)
            status = state.get("status")
            if status == TaskStatus.Success.value:
                result = state.get("result")
                if not isinstance(result, dict):
                    raise TaskFailedError(f"{self.endpoint} finished a task without a result")
                return result
            if status == TaskStatus.Failed.value:
                reason = self._words(state.get("error") or "no reason given")
                raise TaskFailedError(f"the DDS cloud could not do its task: {reason}")
            if time.monotonic() + pause_s > deadline:
                raise DDSError(
                    f"the DDS cloud did not finish a task within {self.task_timeout_s:g} s ({self._words(status)})"
                )
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_POLL_S)

    def _words(self, text: object) -> str:
        """What the service says, cleaned for terminals and logs, and without the token."""
        return shown(str(text).replace(self._config.token, "***"))[:_MOST_WORDS]

    def _task(self, api_path: str = "", api_body: Mapping[str, Any] | None = None) -> Any:
        task = V2Task(api_path, dict(api_body or {}))
        task.config = self._config
        return task

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> dict[str, Any]:
        """Send one request, again while it may help, and give the "data" of its answer."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._send(method, url, headers, body)
            except _PassingError as problem:
                if attempt == ATTEMPTS:
                    raise DDSError(f"{self.endpoint} {problem} ({ATTEMPTS} attempts)") from problem
                if problem.pause_s > LONGEST_PAUSE_S:
                    raise DDSError(f"{self.endpoint} {problem} and asks to wait {problem.pause_s:.0f} s") from problem
                pause_s = max(problem.pause_s, FIRST_PAUSE_S * 2 ** (attempt - 1))
                logger.info("%s %s; next attempt in %.1f s", self.endpoint, problem, pause_s)
                time.sleep(pause_s)

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        """One attempt. A redirection is not followed: it could carry the token to another host."""

        def exchange() -> tuple[requests.Response, bytes]:
            response = self._session.request(
                method,
                url,
                headers=dict(headers),
                data=body,
                timeout=self.request_timeout_s,
                allow_redirects=False,
                stream=True,
            )
            with response:
                return response, response.raw.read(MOST_BYTES + 1, decode_content=True)

        deadline_s = DEADLINES * self.request_timeout_s
        try:
            response, content = _within(deadline_s, exchange)
        except _TooLateError as error:
            self._session = requests.Session()  # the other one is still in use
            raise _PassingError(f"does not end its answer within {deadline_s:g} s") from error
        except requests.Timeout as error:
            raise _PassingError(f"gives no answer within {self.request_timeout_s:g} s") from error
        except requests.exceptions.SSLError as error:
            raise _PassingError("cannot be reached securely: its certificate or the connection is refused") from error
        except requests.ConnectionError as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            is_unreachable = isinstance(reason, NewConnectionError)
            raise _PassingError("cannot be reached" if is_unreachable else "broke the connection off") from error
        except (requests.RequestException, HTTPError, OSError) as error:  # the last two while the answer is read
            is_late = isinstance(error, (ReadTimeoutError, TimeoutError))
            what = f"gives no answer within {self.request_timeout_s:g} s" if is_late else "broke its answer off"
            raise _PassingError(what) from error
        if len(content) > MOST_BYTES:
            raise DDSError(f"{self.endpoint} answers with more than {MOST_BYTES} bytes")
        return self._read(response, content)

    def _read(self, response: requests.Response, content: bytes) -> dict[str, Any]:
        """The "data" of an answer; what is wrong with it, in plain words, as an exception."""
        text = content.decode("utf-8", "replace").replace(self._config.token, "***")
        try:
            answer = plain_json.loads(text)
        except ValueError:
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        status, code = response.status_code, answer.get("code")
        words = self._words(answer.get("msg") or answer.get("message") or response.reason or "no reason given")
        pause_s = _retry_after(response.headers.get("Retry-After"))
        if status >= 500 or status in _PASSING_STATUS:
            if status == 429 and pause_s == 0 and _QUOTA.search(words):
                raise QuotaError(_quota_words(words))
            raise _PassingError(f"answers {status} ({words})", pause_s)
        if status < 300 and code == 0 and isinstance(answer.get("data"), dict):
            return dict(answer["data"])
        if status < 300 and code == ErrCode.Retry:
            raise _PassingError(f"asks to try again ({words})", pause_s)
        if status < 300 and not code:
            raise _PassingError("answers what is no JSON of its protocol")
        if status == 402 or _QUOTA.search(words):
            raise QuotaError(_quota_words(words))
        if status in (401, 403) or _TOKEN.search(words):
            raise TokenError(f"the DDS cloud does not accept the token ({words}): check DDS_API_TOKEN or --api-token")
        raise RefusedError(f"{self.endpoint} refuses the request: {words} (status {status}, code {code})")


class _TooLateError(Exception):
    """Something is not done in time."""


def _within(seconds: float, function: Callable[[], T]) -> T:
    """What a function gives within a time; after it, the function is left to itself.

    A server that sends a byte now and then is never silent, so that no time-out of a socket ends it.

    Raises:
        _TooLateError: the time is over.
    """
    outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # handed on
            outcome.put((None, error))

    threading.Thread(target=work, name="a question to the DDS cloud", daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise _TooLateError from None
    if error is not None:
        raise error
    return cast(T, result)


def _full_address(endpoint: str) -> str:
    address = (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of a port or an IPv6 address that is none
        is_address = False
    if not is_address or "@" in parts.netloc or not address.isprintable() or " " in address:
        raise ValueError(f"expected an endpoint such as https://api.deepdataspace.com, got {source_name(address)!r}")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        logger.warning("the token goes to %s unencrypted: use https", address)
    return address


def _retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, given as a number or a date; 0 without one that can be read."""
    if header is None:
        return 0.0
    with contextlib.suppress(ValueError):
        seconds = float(header)
        return seconds if 0 <= seconds < float("inf") else 0.0
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return 0.0


def _quota_words(words: str) -> str:
    return f"what the token may ask the DDS cloud for is used up ({words}): see https://cloud.deepdataspace.com"
