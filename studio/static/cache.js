// Frames and masks around the current frame, fetched ahead, in bounded memory.

import { drawRuns, runsOf } from "./rle.js";

const WIDTHS = [320, 640, 960, 1280, 1920, 3840]; // that the server makes frames in
const FRAME_BYTES = 256 * 2 ** 20;
const MOST_WANTED = 120; // frames around the current one that are fetched unasked; memory holds more
const AHEAD = 0.75; // of these, the part after the current one
const FRAMES_AT_ONCE = 3; // requests; the browser opens six connections, one of which is taken by events
const CHUNK = 32; // frames of masks in one request

/** The smallest width the server makes that has a pixel for each of the screen's. */
export const widthFor = (screenPixels) => WIDTHS.find((width) => width >= screenPixels) ?? WIDTHS[WIDTHS.length - 1];

/** The numbers of the frames to have, the most wanted first: the current one, then ahead and behind in turn. */
export function wantedFrames(current, count, numFrames) {
  const ahead = Math.min(numFrames - 1 - current, Math.max(Math.ceil(count * AHEAD), count - 1 - current));
  const behind = Math.min(current, count - 1 - ahead);
  const wanted = [current];
  for (let step = 1; step <= Math.max(ahead, behind * 3); step++) {
    if (step <= ahead) wanted.push(current + step);
    if (step % 3 === 0 && step / 3 <= behind) wanted.push(current - step / 3);
  }
  return wanted;
}

/** Decoded frames. `onFrame(t)` is told of each that has come, `onError(error)` of one that has not. */
export class FrameCache {
  constructor(api, token, size, numFrames, onFrame, onError) {
    Object.assign(this, { api, token, size, numFrames, onFrame, onError });
    this.width = this.sharp = WIDTHS[1]; // of all frames, and of the current one
    this.current = 0;
    this.bitmaps = new Map(); // frame → {bitmap, width}
    this.requests = new Map(); // frame → AbortController
    this.failed = new Map(); // frame → when it may be asked for again, in milliseconds
  }

  /** The frame as it is in memory, or null. */
  get(frame) {
    return this.bitmaps.get(frame)?.bitmap ?? null;
  }

  /** How many frames fit. */
  get room() {
    const width = Math.min(this.width, this.size[0]);
    const bytes = width * ((width * this.size[1]) / this.size[0]) * 4;
    return Math.max(4, Math.floor(FRAME_BYTES / bytes));
  }

  /**
   * Say which frame is shown, and how many pixels of the screen it is wide. `sharpWidth`: as many pixels are wanted of
   * this frame alone, which one has zoomed into.
   */
  want(current, screenWidth, sharpWidth = 0) {
    this.current = current;
    this.width = this.widthFor(screenWidth);
    this.sharp = Math.max(this.width, this.widthFor(sharpWidth));
    const near = new Set(this.wanted());
    for (const [frame, request] of this.requests) if (!near.has(frame)) request.abort();
    this.fill();
  }

  wanted() {
    return wantedFrames(this.current, Math.min(MOST_WANTED, this.room), this.numFrames);
  }

  fill() {
    const wanted = this.wanted();
    const now = Date.now();
    for (const frame of wanted) {
      const atOnce = frame === this.current ? FRAMES_AT_ONCE + 1 : FRAMES_AT_ONCE; // what is looked at does not wait
      if (this.requests.size >= atOnce) break;
      const width = frame === this.current ? this.sharp : this.width;
      const isThere = this.bitmaps.get(frame)?.width >= width;
      if (!isThere && !this.requests.has(frame) && !(this.failed.get(frame) > now)) this.fetch(frame, width);
    }
    this.drop();
  }

  widthFor(pixels) {
    return widthFor(Math.min(pixels, this.size[0]));
  }

  async fetch(frame, width) {
    const request = new AbortController();
    this.requests.set(frame, request);
    try {
      const blob = await this.api.frame(this.token, frame, width, request.signal);
      const bitmap = await createImageBitmap(blob);
      this.bitmaps.get(frame)?.bitmap.close();
      this.bitmaps.set(frame, { bitmap, width });
      this.failed.delete(frame);
      this.onFrame(frame);
    } catch (error) {
      if (error.name !== "AbortError") {
        this.failed.set(frame, Date.now() + 3000);
        setTimeout(() => this.fill(), 3100);
        if (frame === this.current) this.onError(error);
      }
    } finally {
      this.requests.delete(frame);
      this.fill();
    }
  }

  close() {
    this.fill = () => {};
    for (const request of this.requests.values()) request.abort();
    for (const { bitmap } of this.bitmaps.values()) bitmap.close();
    this.bitmaps.clear();
  }

  /** Let go of the frames that are farthest when there are too many, and of sharp ones that are not looked at any more. */
  drop() {
    const isOld = (frame, width) => frame !== this.current && width > this.width;
    const distance = (frame) => (frame < this.current ? 3 : 1) * Math.abs(frame - this.current);
    const frames = [...this.bitmaps].sort(([one], [other]) => distance(one) - distance(other));
    frames.forEach(([frame, { bitmap, width }], index) => {
      if (index < this.room && !isOld(frame, width)) return;
      bitmap.close();
      this.bitmaps.delete(frame);
    });
  }
}

/**
 * Masks as the server has them. What has changed is fetched again; until it is there, what was is shown.
 * `onMasks(frames)` is told of the frames that have come.
 */
export class MaskCache {
  constructor(api, token, numFrames, onMasks, onError) {
    Object.assign(this, { api, token, numFrames, onMasks, onError });
    this.cells = new Map(); // frame → cells, with `runs` decoded from `counts`
    this.fresh = new Set(); // frames whose cells are as the server has them
    this.changes = new Map(); // frame → how often it has changed: an answer from before a change is not fresh
    this.current = 0;
    this.retryAt = 0;
    this.request = null;
  }

  /** The cells of a frame, or null where they have not come yet. */
  get(frame) {
    return this.cells.get(frame) ?? null;
  }

  /** Whether the cells of a frame are as the server has them. */
  isFresh(frame) {
    return this.fresh.has(frame);
  }

  /** Say which frame is shown. */
  want(current) {
    this.current = current;
    this.fill();
  }

  /** Say that the masks of some frames are not what they were; they are fetched again. */
  invalidate(first, last) {
    for (let frame = Math.max(0, first); frame <= Math.min(last, this.numFrames - 1); frame++) {
      this.fresh.delete(frame);
      this.changes.set(frame, (this.changes.get(frame) ?? 0) + 1);
    }
    this.fill();
  }

  /** Say that anything may have changed. */
  invalidateAll() {
    this.invalidate(0, this.numFrames - 1);
  }

  fill() {
    if (this.request || Date.now() < this.retryAt) return;
    const span = this.next();
    if (span) this.request = this.fetch(...span).finally(() => ((this.request = null), this.fill()));
  }

  close() {
    this.fill = () => {};
  }

  /** The next span to fetch: from the first frame missing ahead, or else behind. Those shown next come first. */
  next() {
    const isMissing = (frame) => !this.fresh.has(frame);
    const last = Math.min(this.numFrames - 1, this.current + 8 * CHUNK);
    for (let frame = this.current; frame <= last; frame++) {
      // The frame that is looked at comes by itself when only it is missing: a correction is seen at once.
      if (isMissing(frame)) return this.spanFrom(frame, last);
    }
    const first = Math.max(0, this.current - 3 * CHUNK);
    for (let frame = this.current - 1; frame >= first; frame--) {
      if (isMissing(frame)) return this.spanFrom(Math.max(first, frame - CHUNK + 1), frame);
    }
    return null;
  }

  spanFrom(first, last) {
    let end = Math.min(last, first + CHUNK - 1);
    if (first === this.current) end = Math.min(end, first + 3); // the first answer is quick
    while (end > first && this.fresh.has(end)) end--;
    return [first, end];
  }

  async fetch(first, last) {
    const before = new Map();
    for (let frame = first; frame <= last; frame++) before.set(frame, this.changes.get(frame) ?? 0);
    try {
      const frames = await this.api.masks(this.token, first, last);
      for (const [text, cells] of Object.entries(frames)) {
        const frame = Number(text);
        for (const cell of cells) cell.runs = runsOf(cell.counts);
        this.cells.set(frame, cells);
        if ((this.changes.get(frame) ?? 0) === before.get(frame)) this.fresh.add(frame);
      }
      this.drop();
      this.onMasks(Object.keys(frames).map(Number));
    } catch (error) {
      this.retryAt = Date.now() + 2000;
      setTimeout(() => this.fill(), 2100);
      this.onError(error);
    }
  }

  drop() {
    for (const frame of this.cells.keys()) {
      if (frame < this.current - 8 * CHUNK || frame > this.current + 16 * CHUNK) {
        this.cells.delete(frame);
        this.fresh.delete(frame);
      }
    }
  }
}
