// What a click, a box or a stroke on the stage means, and the commands that it becomes.

import { clamp } from "./dom.js";
import { encodeMask, isInside, runsOf } from "./rle.js";
import { visibleCells } from "./overlay.js";
import { toast } from "./toast.js";

const NEAR = 0.25; // of an object's box, by which a click may lie beside it and still mean it

/** One person's hand in one session. Coordinates are pixels of the video. `onChange` is called when something is to be drawn. */
export class Actions {
  constructor(store, onChange) {
    Object.assign(this, { store, onChange });
    this.points = []; // clicks that are shown: {id, frame, x, y, label, isPending}
    this.strokes = []; // strokes on their way: {id, frame, points, radius, erase}
    this.open = null; // {id, frame}: the object that takes clicks wherever they lie, because it was chosen on this frame
    this.preview = null; // {frame, runs, box}: the mask that a click would make
    this.queue = Promise.resolve();
    store.on("selected", () => this.opened(store.selected));
    store.on("frame", () => this.forget());
    store.on("done", ({ command }) => (command === "undo" || command === "redo") && this.forget());
    store.on("masks", (frames) => this.dropStrokes(frames));
    this.opened(store.selected);
  }

  // ---- what is where ----

  cellOf(id) {
    return this.store.masks.get(this.store.frame)?.find((cell) => cell.id === id) ?? null;
  }

  /** The object whose mask is at a place: the selected one, or else the smallest. null for none. */
  objectAt(x, y) {
    const { store } = this;
    const { height } = store.state;
    const cells = visibleCells(store, store.masks.get(store.frame)).reverse(); // the selected one, then small to large
    return cells.find(({ box, runs }) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3] && isInside(runs, height, Math.floor(x), Math.floor(y)))?.id ?? null;
  }

  /** The candidate of this frame at a place, the smallest of several; null for none. */
  candidateAt(x, y) {
    const { candidates, frame, state } = this.store;
    if (candidates?.frame !== frame) return null;
    const isIn = ({ box }) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
    const covers = ({ runs }) => isInside(runs, state.height, Math.floor(x), Math.floor(y));
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const there = candidates.items.filter((item) => isIn(item) && (candidates.kind === "find" || covers(item)));
    return there.sort((one, other) => area(one) - area(other))[0] ?? null;
  }

  /**
   * What a click means: {kind: "pick", item}, {kind: "select" | "refine", id} or {kind: "add"}.
   *
   * The selected object is corrected by a click on it or near it; anywhere on the frame where it was chosen, or where it
   * is not seen. A click on another object selects that one. A click on nothing makes a new object.
   */
  intentAt(x, y) {
    const item = this.candidateAt(x, y);
    if (item) return { kind: "pick", item };
    const { selected } = this.store;
    const there = this.objectAt(x, y);
    if (there !== null && there !== selected) return { kind: "select", id: there };
    if (selected === null) return { kind: "add" };
    const isOpen = this.open?.id === selected && this.open.frame === this.store.frame;
    const cell = this.cellOf(selected);
    if (there === selected || isOpen || !cell || !cell.area || isNear(cell.box, x, y)) return { kind: "refine", id: selected };
    return { kind: "add" };
  }

  // ---- clicks and boxes ----

  /** A click on something; `isNot`: beside it, "not that". Clicks are taken one after another. */
  click(x, y, isNot = false) {
    this.preview = null;
    return this.inTurn(() => (isNot ? this.takeAway(x, y) : this.clickOn(x, y)));
  }

  clickOn(x, y) {
    const { store } = this;
    const intent = this.intentAt(x, y);
    if (intent.kind === "pick") return store.setCandidate(intent.item.key, { accepted: !intent.item.accepted });
    if (intent.kind === "select") return store.select(intent.id);
    if (intent.kind === "refine") return this.refine(intent.id, x, y, 1);
    const { frame } = store;
    return this.withPoint({ id: null, frame, x, y, label: 1 }, async (point) => {
      point.id = (await store.do("add", { frame, points: [[x, y]], labels: [1] })).id;
      this.begin(point.id, frame);
    });
  }

  takeAway(x, y) {
    const { store } = this;
    const item = this.candidateAt(x, y);
    if (item) return store.setCandidate(item.key, { accepted: false });
    const id = store.selected ?? this.objectAt(x, y);
    if (id === null) return toast("“Not that” takes away from an object: click on one first.");
    store.select(id);
    if (!this.cellOf(id)?.area) return toast(`${store.object(id).name} is not seen on this frame: click on it first.`);
    return this.refine(id, x, y, 0);
  }

  refine(id, x, y, label) {
    const { frame } = this.store;
    this.open = { id, frame };
    return this.withPoint({ id, frame, x, y, label }, () => this.store.do("refine", { id, frame, points: [[x, y]], labels: [label] }));
  }

  /** A new object in a box. */
  box(box) {
    const { frame } = this.store;
    return this.inTurn(async () => {
      const { id } = await this.store.do("add", { frame, box });
      this.begin(id, frame);
    });
  }

  /** All candidates along a line become one: the pieces of one thing. @param keys in the order they were met. */
  unite(keys) {
    const { candidates } = this.store;
    const first = candidates.items.find((item) => item.key === keys[0]);
    const items = candidates.items.map((item) => (keys.includes(item.key) ? { ...item, accepted: true, group: first.group, color: first.color } : item));
    this.store.setCandidates({ ...candidates, items });
  }

  // ---- strokes ----

  /** The object that a stroke from a place would change, which becomes the selected one; null for a new one. */
  strokeTarget(x, y) {
    const { store } = this;
    if (store.selected === null) store.select(this.objectAt(x, y));
    return store.selected;
  }

  /** Send a stroke: {id (null for a new object), points, radius, erase}. It is shown until its answer is. */
  stroke({ id, points, radius, erase }) {
    const { store } = this;
    const stroke = { id, frame: store.frame, points, radius, erase };
    this.strokes.push(stroke);
    return this.inTurn(async () => {
      try {
        if (id === null) {
          const counts = strokeCounts(stroke, store.state.width, store.state.height);
          this.begin((await store.do("add", { frame: stroke.frame, counts })).id, stroke.frame);
        } else {
          await store.do("paint", { id, frame: stroke.frame, stroke: points, radius, erase });
        }
        stroke.isDone = true;
      } catch (error) {
        this.strokes = this.strokes.filter((each) => each !== stroke);
        throw error;
      }
    });
  }

  dropStrokes(frames) {
    const isShown = (stroke) => stroke.isDone && frames.includes(stroke.frame) && this.store.masks.isFresh(stroke.frame);
    this.strokes = this.strokes.filter((stroke) => !isShown(stroke));
    this.onChange();
  }

  // ---- parts ----

  inTurn(work) {
    this.queue = this.queue.then(work).catch(() => {}).finally(() => this.onChange()); // the store has shown the error
    return this.queue;
  }

  async withPoint(point, work) {
    point.isPending = true;
    this.points.push(point);
    this.onChange();
    try {
      await work(point);
    } catch (error) {
      this.points = this.points.filter((each) => each !== point);
      throw error;
    } finally {
      point.isPending = false;
    }
  }

  /** Select an object that was just made. */
  begin(id, frame) {
    this.store.select(id);
    this.open = { id, frame };
  }

  opened(id) {
    this.open = id === null ? null : { id, frame: this.store.frame };
    this.points = this.points.filter((point) => point.id === id || point.isPending);
  }

  /** Show no clicks and no preview of before. */
  forget() {
    this.points = this.points.filter((point) => point.isPending);
    this.preview = null;
  }
}

/** Whether a place is in a box, or beside it by a part of its size. */
function isNear([left, top, right, bottom], x, y) {
  const [dx, dy] = [NEAR * (right - left), NEAR * (bottom - top)];
  return x >= left - dx && x < right + dx && y >= top - dy && y < bottom + dy;
}

/** A path of a round brush, for a canvas whose units are pixels of the video. */
export function strokePath(context, { points, radius }) {
  context.lineWidth = 2 * radius;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points) context.lineTo(...point);
  context.stroke();
}

/** The mask of a stroke, as compressed run lengths: the pixels whose middle is as near to its path as the brush is wide. */
function strokeCounts({ points, radius }, width, height) {
  const pixels = new Uint8Array(width * height);
  points.forEach(([x1, y1], index) => {
    const [x0, y0] = points[Math.max(0, index - 1)];
    const [dx, dy] = [x1 - x0, y1 - y0];
    const bottom = Math.min(height, Math.ceil(Math.max(y0, y1) + radius));
    const right = Math.min(width, Math.ceil(Math.max(x0, x1) + radius));
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    for (let y = Math.max(0, Math.floor(Math.min(y0, y1) - radius)); y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const part = clamp(((x + 0.5 - x0) * dx + (y + 0.5 - y0) * dy) / (dx * dx + dy * dy || 1), 0, 1);
        if (Math.hypot(x + 0.5 - x0 - part * dx, y + 0.5 - y0 - part * dy) <= radius) pixels[y * width + x] = 1;
      }
    }
  });
  return encodeMask(pixels, width, height);
}

/**
 * Ask for the mask that a click at the pointer would make: one request at a time, and of those that came meanwhile only
 * the latest.
 */
export class Hover {
  constructor(store, actions, api) {
    Object.assign(this, { store, actions, api });
    this.next = null;
    this.isAsking = false;
  }

  at(x, y) {
    this.next = [x, y];
    if (!this.isAsking) this.ask();
  }

  stop() {
    this.next = null;
    if (!this.actions.preview) return;
    this.actions.preview = null;
    this.actions.onChange();
  }

  async ask() {
    const { store, actions } = this;
    this.isAsking = true;
    while (this.next) {
      const [x, y] = this.next;
      const { frame } = store;
      const intent = actions.intentAt(x, y);
      const of = intent.kind === "refine" ? { id: intent.id } : {};
      const asked = this.next;
      try {
        const { result } = await this.api.run(store.token, "preview", { frame, points: [[x, y]], labels: [1], ...of });
        if (this.next && frame === store.frame) actions.preview = { frame, runs: runsOf(result.counts), box: result.box, score: result.score };
        actions.onChange();
      } catch (error) {
        store.fail(error);
        this.next = null;
      }
      if (this.next === asked) break; // the pointer rests: the answer stays
    }
    this.isAsking = false;
    if (!this.next) this.stop();
  }
}
