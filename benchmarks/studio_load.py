r"""How the server of the page holds up: users at once on loopback, and what a single one waits for a click.

    python benchmarks/studio_load.py --users 8 --seconds 300
    python benchmarks/studio_load.py --single                     # first mask after a click, hover previews, 720p

It starts `grounded_sam2_app.py` with the bundled models in a folder of its own. Each user opens the sample, looks for
owls, accepts, hovers, clicks, tracks a span, and reads frames and masks, again and again, and removes the session at
the end of each round. Printed are errors, latencies for each kind of request (of all users, and the fastest and the
slowest user's median), and the memory of the server over time.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from grounded_sam2.video import VideoWriter, open_frames  # noqa: E402

SPAN = 8  # frames that a user tracks in a round
NUM_HOVERS = 10
READ_FRAMES = 16
MEMORY_SECONDS = 5.0
PROMPT = "owl. motorcycle."

Latencies = dict[str, list[float]]


@contextmanager
def server(folder: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server that is started, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(REPOSITORY / "grounded_sam2_app.py"), "--port", str(port), "--output-dir", folder]
    process = subprocess.Popen([*command, "--no-open-browser", "--max-sessions-per-user", "200"], cwd=REPOSITORY)
    address = f"http://127.0.0.1:{port}"
    try:
        started = time.monotonic()
        while True:
            try:
                httpx.get(f"{address}/studio/samples")
                break
            except httpx.ConnectError:
                if process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.1)
        print(f"the server answered after {time.monotonic() - started:.1f} s", flush=True)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


class User:
    """One user; `latencies` in seconds by kind of request, `errors` as text."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=120)
        self.latencies: Latencies = defaultdict(list)
        self.errors: list[str] = []
        self.page = ""

    def ask(self, kind: str, method: str, path: str, **options: Any) -> Any:
        """One request; its answer as JSON, or the response itself where it is none."""
        asked = time.monotonic()
        answer = self.client.request(method, path, **options)
        self.latencies[kind].append(time.monotonic() - asked)
        if answer.status_code != 200:
            self.errors.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            raise RuntimeError(self.errors[-1])
        return answer.json() if answer.headers["content-type"] == "application/json" else answer

    def do(self, command: str, kind: str | None = None, **args: Any) -> Any:
        return self.ask(kind or command, "POST", f"{self.page}/do/{command}", json=args).get("result")

    def round(self, seed: int, until: float) -> None:
        """All that a user does with one session."""
        rng = random.Random(seed)
        made = self.ask("create", "POST", "/studio/sessions", json={"sample": "parade"})
        self.page = f"/studio/{made['token']}"
        num_frames, width, height = (made["state"][name] for name in ("num_frames", "width", "height"))
        self.do("set_search", text_prompt=PROMPT)
        home = rng.randrange(num_frames - SPAN)
        found = self.do("find", frame=home)
        self.do("accept", find=found["find"], keys=[item["key"] for item in found["items"]])
        for _ in range(NUM_HOVERS):
            self.do("preview", frame=home, points=[[rng.randrange(width), rng.randrange(height)]])
        self.do("add", "click", frame=home, points=[[rng.randrange(width), rng.randrange(height)]])
        started = time.monotonic()
        job = self.ask("start", "POST", f"{self.page}/jobs", json=tracking(home))["job"]
        for t in range(READ_FRAMES):
            self.ask("frame", "GET", f"{self.page}/frames/{(home + t) % num_frames}?width=1280")
        while job["state"] in ("waiting", "running") and time.monotonic() < until + 120:
            time.sleep(0.2)
            self.ask("masks", "GET", f"{self.page}/masks?first={home}&last={home + SPAN}")
            [job] = [each for each in self.ask("state", "GET", f"{self.page}/state")["jobs"] if each["id"] == job["id"]]
        if job["state"] != "done":
            self.errors.append(f"tracking: {job['state']} {job['error']}")
        self.latencies[f"tracking {SPAN} frames"].append(time.monotonic() - started)
        self.ask("timeline", "GET", f"{self.page}/timeline")
        self.ask("remove", "DELETE", self.page)

    def run(self, number: int, until: float) -> None:
        """Rounds until a time."""
        seed = number * 10_000
        while time.monotonic() < until:
            seed += 1
            try:
                self.round(seed, until)
            except (RuntimeError, httpx.HTTPError) as error:
                if not isinstance(error, RuntimeError):
                    self.errors.append(repr(error))


def tracking(home: int) -> dict[str, Any]:
    return {"kind": "propagate", "first": home, "last": home + SPAN, "direction": "forward"}


def load(address: str, process: psutil.Process, num_users: int, seconds: float) -> bool:
    """Let users work at once, and print how it went; whether there was no error."""
    users = [User(address) for _ in range(num_users)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=user.run, args=(number, until)) for number, user in enumerate(users)]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(process.memory_info().rss / 2**20)
        time.sleep(MEMORY_SECONDS)
    print(f"{num_users} users, {seconds:g} s, {sum(len(user.latencies['create']) for user in users)} sessions")
    print(f"{'request':<20}{'number':>8}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}   medians of users, ms")
    for kind in users[0].latencies:
        each = [user.latencies[kind] for user in users if user.latencies[kind]]
        every = 1000 * np.array([latency for latencies in each for latency in latencies])
        medians = [1000 * statistics.median(latencies) for latencies in each]
        p50, p95 = np.percentile(every, [50, 95])
        spread = f"{min(medians):.0f} to {max(medians):.0f}"
        print(f"{kind:<20}{len(every):>8}{p50:>9.0f}{p95:>9.0f}{every.max():>9.0f}   {spread}")
    steps = memory[:: max(1, len(memory) // 12)]
    print(f"memory of the server, MiB: {', '.join(f'{step:.0f}' for step in steps)}; most {max(memory):.0f}")
    errors = [error for user in users for error in user.errors]
    print(f"{len(errors)} errors", *errors[:20], sep="\n")
    return not errors


def footage_720p(folder: str) -> Path:
    """The bundled clip's first frames, enlarged."""
    path = Path(folder) / "footage.mp4"
    with open_frames(REPOSITORY / "assets" / "parade.mp4") as frames, VideoWriter(path, frames.fps) as writer:
        for t in range(48):
            writer.write(cv2.resize(frames[t], (1280, 720), interpolation=cv2.INTER_CUBIC))  # type: ignore[index]
    return path


def single(address: str, folder: str) -> None:
    """What one user waits for on a 720p video while nobody else is there."""
    user = User(address)
    path = footage_720p(folder)
    uploaded = user.ask("upload", "POST", "/gradio_api/upload", files={"files": (path.name, path.read_bytes())})[0]
    made = user.ask("create", "POST", "/studio/sessions", json={"upload": uploaded, "name": path.name})
    user.page = f"/studio/{made['token']}"
    owl = [[480, 380]]
    time.sleep(2)
    for t in range(0, 40, 4):
        user.ask("frame", "GET", f"{user.page}/frames/{t}?width=1280")
        user.do("add", "click, frame not shown", frame=t, points=owl)
    for t in range(1, 41, 4):
        user.ask("frame", "GET", f"{user.page}/frames/{t}?width=1280")
        user.do("show", frame=t)
        time.sleep(0.5)  # a person looks before clicking
        user.do("add", "click, frame shown", frame=t, points=owl)
        for x in range(NUM_HOVERS):
            user.do("preview", "hover preview", frame=t, points=[[400 + 10 * x, 300 + 5 * x]])
    for kind, latencies in user.latencies.items():
        p50, p95 = 1000 * np.percentile(latencies, [50, 95])
        print(f"{kind:<24}{len(latencies):>5} times   p50 {p50:6.1f} ms   p95 {p95:6.1f} ms")
    user.ask("remove", "DELETE", user.page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--single", action="store_true", help="what one user waits for, instead of the load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(folder) as (address, process):
        if options.single:
            single(address, folder)
        elif not load(address, process, options.users, options.seconds):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
