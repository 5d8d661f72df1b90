// What the page knows about one session, and the one way to change it. Panels read it and listen to it.

import { StudioError } from "./api.js";
import { FrameCache, MaskCache } from "./cache.js";
import { listen } from "./events.js";
import { Looking } from "./looking.js";
import { toast } from "./toast.js";

const CHANGING = new Set(["propagate", "resume", "follow_and_find"]);

/** Whether a job is over. */
export const isOver = (job) => job.state !== "waiting" && job.state !== "running";

/**
 * A session as the page sees it.
 *
 * Events, for `on(name, fn)`: state, frame, selected, tool, view, range, candidates, jobs, timeline, doubts, masks,
 * frames, playing, busy, done, connected, gone. `fn` is given the event's detail, if it has one: of "done", the
 * {command, args, result} that this page gave.
 */
export class Store extends Looking {
  constructor(api, token, state) {
    super(token, state);
    Object.assign(this, { api, jobs: state.jobs ?? [], timeline: null, doubts: [] });
    this.busy = 0; // commands that are not answered yet
    this.isConnected = true;
    this.trail = []; // frames that a job has done and that are not shown yet
    this.queue = Promise.resolve();
    this.timers = new Map();
    const size = [state.width, state.height];
    this.frames = new FrameCache(api, token, size, state.num_frames, (t) => this.fire("frames", t), (e) => this.fail(e));
    this.masks = new MaskCache(api, token, state.num_frames, (ts) => this.takeMasks(ts), (e) => this.fail(e));
    this.stopListening = listen(api, token, {
      state: (event) => this.takeState(event.state, event.touched, true),
      job: (event) => this.takeJob(event.job),
      progress: (event) => this.takeProgress(event),
      connected: (isConnected) => this.setConnected(isConnected),
      gone: () => this.fire("gone"),
    });
    this.prefetch();
    this.refresh("timeline", 0);
    this.refresh("doubts", 300);
  }

  /** Let go of the session: no request and no event after this. */
  close() {
    this.fire("closed");
    this.pause();
    for (const timer of [this.sharpTimer, this.keepTimer]) clearTimeout(timer);
    this.stopListening();
    this.frames.close();
    this.masks.close();
    for (const timer of this.timers.values()) {
      clearTimeout(timer.id);
      timer.isStale = false;
    }
    this.listeners.clear();
  }

  // ---- reading ----

  /** The job that changes masks at the moment, or null. */
  get changingJob() {
    return this.jobs.find((job) => CHANGING.has(job.kind) && !isOver(job)) ?? null;
  }

  // ---- changing the session ----

  /** Give a command, after those given before → its result. An error is shown, and thrown. */
  async do(command, args = {}) {
    return (await this.run(command, args)).result;
  }

  /** As `do` → {result, touched, state}. */
  run(command, args = {}) {
    this.setBusy(1);
    const answer = this.queue.then(() => this.api.run(this.token, command, args));
    this.queue = answer.catch(() => {});
    return answer
      .then((answered) => {
        if (answered.state) this.takeState(answered.state, answered.touched); // a look at things changes nothing
        this.fire("done", { command, args, result: answered.result });
        return answered;
      })
      .catch((error) => {
        this.fail(error);
        throw error;
      })
      .finally(() => this.setBusy(-1));
  }

  /** Undo or redo, and go to where that changed something. @param kind "undo" or "redo". */
  async goBack(kind) {
    if (!this.state[kind]) return;
    this.pause();
    const { touched } = await this.run(kind);
    const isHere = touched.some(([, first, last]) => first <= this.frame && this.frame <= last);
    if (touched.length && !isHere) this.setFrame(touched[0][1]);
  }

  /** Start a job → Job; an error is shown, and thrown. The stage goes along with a job that tracks. */
  async startJob(kind, args = {}) {
    try {
      const job = await this.queue.then(() => this.api.startJob(this.token, kind, args));
      const told = this.jobs.find((each) => each.id === job.id); // events may be here before the answer, and newer
      this.follows = CHANGING.has(kind) && !isOver(told ?? job);
      this.home = this.frame;
      if (!told) this.takeJob(job);
      return job;
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** Cancel a job; what it did stays. */
  async cancelJob(id) {
    try {
      await this.api.cancelJob(this.token, id);
    } catch (error) {
      this.fail(error);
    }
  }

  // ---- what comes from the server ----

  takeState(state, touched = [], isEvent = false) {
    if (!isEvent && state.version < this.state.version) return; // an event was quicker than the answer
    this.state = state;
    this.jobs = state.jobs ?? this.jobs;
    for (const [, first, last] of touched ?? []) this.masks.invalidate(first, last);
    if (!this.object(this.selected) && this.selected !== null) this.select(null);
    this.fire("state");
    this.fire("jobs");
    this.refresh("timeline", 150);
    this.refresh("doubts", 600);
  }

  takeJob(job) {
    const index = this.jobs.findIndex((each) => each.id === job.id);
    if (index >= 0) this.jobs.splice(index, 1, job);
    else this.jobs.push(job);
    if (isOver(job) && CHANGING.has(job.kind)) {
      if (this.follows && job.state === "done") this.showFrame(this.home); // back to where it was asked for
      this.follows = false;
      this.masks.fill();
      this.refresh("timeline", 0);
      this.refresh("doubts", 100);
    }
    this.fire("jobs");
  }

  takeProgress({ job, frame, ids }) {
    this.takeJob(job);
    if (!ids.length) return; // only passed on the way
    this.masks.invalidate(frame, frame);
    if (this.follows) {
      this.trail.push(frame);
      this.masks.want(frame);
    }
    this.refresh("timeline", 1000);
  }

  /** Masks have come: a job is followed to the frame that it did last of those. */
  takeMasks(frames) {
    const index = this.trail.findLastIndex((frame) => frames.includes(frame) && this.masks.isFresh(frame));
    if (this.follows && index >= 0) this.showFrame(this.trail[index]);
    this.trail.splice(0, this.follows ? index + 1 : this.trail.length);
    this.fire("masks", frames);
  }

  setConnected(isConnected) {
    const hasReturned = isConnected && !this.isConnected;
    this.isConnected = isConnected;
    if (hasReturned) this.masks.invalidateAll();
    this.fire("connected", isConnected);
  }

  /** Fetch the timeline or the doubts again in `delay` milliseconds, or sooner where that was said before. */
  refresh(name, delay) {
    const due = performance.now() + delay;
    const waiting = this.timers.get(name);
    if (waiting?.isAsked) {
      waiting.isStale = true; // what is under way may not know yet what is new
      return;
    }
    if (waiting?.due <= due) return;
    clearTimeout(waiting?.id);
    const timer = { due, isAsked: false, isStale: false };
    this.timers.set(name, timer);
    timer.id = setTimeout(async () => {
      timer.isAsked = true;
      try {
        this[name] = await this.api[name](this.token);
        this.fire(name);
      } catch (error) {
        if (error.status !== 0) this.fail(error);
      } finally {
        this.timers.delete(name);
        if (timer.isStale) this.refresh(name, delay);
      }
    }, delay);
  }

  // ---- parts ----

  setBusy(change) {
    this.busy += change;
    this.fire("busy");
  }

  fail(error) {
    if (error.name === "AbortError") return;
    if (error.status === 404) this.checkThere(error);
    else if (error.status === 401) toast(error.message, { kind: "error", action: { label: "Load again", run: () => location.reload() } });
    else if (error instanceof StudioError) toast(error.message, { kind: "error" });
    else {
      console.error(error);
      toast("Something in the page itself went wrong. Reload it if it does not go on: nothing is lost.", { kind: "error" });
    }
  }

  /** What was asked for is not there; is the session? */
  async checkThere(error) {
    const isGone = await this.api.state(this.token).then(() => false, (answer) => answer.status === 404);
    if (isGone) this.fire("gone");
    else toast(error.message, { kind: "error" });
  }
}

export const createStore = (api, token, state) => new Store(api, token, state);
