// What of a session is looked at: frame, selection, tool, view, range, candidates. None of it changes the session.

import { clamp } from "./dom.js";
import { keep, kept } from "./memory.js";
import { Playback } from "./playback.js";
import { runsOf } from "./rle.js";

const VIEW = { opacity: 0.5, fill: true, outlines: true, boxes: false, labels: true };

/** A part of `Store`, which has the `frames` and `masks` that are fetched for what is looked at. */
export class Looking {
  constructor(token, state) {
    const at = kept(`at:${token}`) ?? {};
    Object.assign(this, { token, state, candidates: null });
    this.frame = clamp(at.frame ?? 0, 0, state.num_frames - 1);
    this.selected = this.object(at.selected) ? at.selected : null;
    this.range = at.range ?? null;
    this.view = { ...VIEW, ...kept("view") };
    this.tool = "point";
    this.brushRadius = Math.max(2, Math.round(Math.min(state.width, state.height) / 30));
    this.screenWidth = 640; // of a whole frame on the stage, in the screen's pixels; see `setScreen`
    this.sharpWidth = 0;
    this.zoom = at.zoom ?? null; // where one has zoomed to, as `Viewport.place` says it
    this.follows = false; // whether the stage goes along with a job's frames
    this.home = 0; // the frame that was shown when the job was asked for
    this.listeners = new Map();
    this.playback = new Playback(this);
  }

  /** The object of an id, or null. */
  object(id) {
    return this.state.objects.find((object) => object.id === id) ?? null;
  }

  get playing() {
    return this.playback.isPlaying;
  }

  // ---- events ----

  /** Call `fn` at each event of a name; returns a function that ends it. */
  on(name, fn) {
    if (!this.listeners.has(name)) this.listeners.set(name, new Set());
    this.listeners.get(name).add(fn);
    return () => this.listeners.get(name)?.delete(fn);
  }

  fire(name, detail) {
    for (const fn of this.listeners.get(name) ?? []) fn(detail);
  }

  // ---- changing what is looked at ----

  /** Show a frame. */
  setFrame(frame) {
    this.follows = false;
    this.pause();
    this.showFrame(frame);
  }

  step(count) {
    this.setFrame(this.frame + count);
  }

  /** Show a frame while it plays or follows a job. */
  showFrame(frame) {
    const next = clamp(Math.round(frame), 0, this.state.num_frames - 1);
    if (next === this.frame) return;
    this.frame = next;
    this.prefetch();
    this.fire("frame");
    this.keepPlace();
  }

  play() {
    this.follows = false;
    this.playback.play();
  }

  pause() {
    this.playback.pause();
  }

  select(id) {
    const selected = this.object(id) ? id : null;
    if (selected === this.selected) return;
    this.selected = selected;
    this.fire("selected");
    this.keepPlace();
  }

  /** Say how many pixels of the screen a whole frame is wide, fitted and as it is zoomed; see `Viewport.place`. */
  setScreen(fittedWidth, zoomedWidth, zoom) {
    Object.assign(this, { screenWidth: fittedWidth, sharpWidth: zoomedWidth, zoom });
    this.prefetch();
    this.keepPlace();
  }

  setTool(tool) {
    if (tool === this.tool) return;
    this.tool = tool;
    this.fire("tool");
  }

  setBrushRadius(radius) {
    this.brushRadius = clamp(radius, 0.5, Math.max(this.state.width, this.state.height) / 4);
    this.fire("tool");
  }

  setView(changes) {
    Object.assign(this.view, changes);
    keep("view", this.view);
    this.fire("view");
  }

  /** @param range {first, last}, both inclusive, or null for the whole video. */
  setRange(range) {
    this.range = range && range.first <= range.last ? range : null;
    this.fire("range");
    this.keepPlace();
  }

  /**
   * What was found on a frame and is to be accepted or not, {find, frame, kind, items}, or null. Each item has
   * `accepted`, true for what is new, and `group`: accepted items with one group become one object.
   */
  setCandidates(candidates) {
    if (candidates) {
      const isNew = (item) => candidates.kind !== "everything" && !item.known_as;
      const items = candidates.items.map((item) => ({ accepted: isNew(item), group: item.key, runs: runsOf(item.counts), ...item }));
      candidates = { kind: "find", ...candidates, items };
    }
    this.candidates = candidates;
    this.fire("candidates");
  }

  /** Change one candidate: `accepted` or `group`. */
  setCandidate(key, changes) {
    const item = this.candidates?.items.find((each) => each.key === key);
    if (!item) return;
    Object.assign(item, changes);
    this.fire("candidates");
  }

  // ---- parts ----

  prefetch() {
    this.frames.want(this.frame, this.screenWidth);
    this.masks.want(this.frame);
    clearTimeout(this.sharpTimer);
    const sharpen = () => !this.playing && this.frames.want(this.frame, this.screenWidth, this.sharpWidth);
    if (this.sharpWidth > this.screenWidth) this.sharpTimer = setTimeout(sharpen, 150); // when one has come to rest
  }

  keepPlace() {
    clearTimeout(this.keepTimer);
    this.keepTimer = setTimeout(() => {
      const { frame, selected, range, zoom } = this;
      keep(`at:${this.token}`, { frame, selected, range, zoom });
    }, 200);
  }
}
