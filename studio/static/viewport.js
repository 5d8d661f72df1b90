// Where the video lies on the stage: zoom and pan. Positions on the stage are in CSS pixels of the canvas.

import { clamp } from "./dom.js";

const MARGIN = 12; // around a frame that is fitted
const MOST = 32; // screen pixels for a pixel of the video
const KEPT = 48; // pixels of the frame that stay in sight

export class Viewport {
  constructor(width, height) {
    Object.assign(this, { width, height }); // of the video
    this.stage = { width: 1, height: 1 };
    this.isFitted = true;
    this.fit();
  }

  /** The scale at which the whole frame is seen. */
  get fitting() {
    const { width, height } = this.stage;
    return Math.max(0.01, Math.min((width - 2 * MARGIN) / this.width, (height - 2 * MARGIN) / this.height));
  }

  fit() {
    this.isFitted = true;
    this.scale = this.fitting;
    this.left = (this.stage.width - this.width * this.scale) / 2;
    this.top = (this.stage.height - this.height * this.scale) / 2;
  }

  resize(width, height) {
    const [x, y] = this.toVideo(this.stage.width / 2, this.stage.height / 2);
    this.stage = { width, height };
    if (this.isFitted) this.fit();
    else this.center(x, y);
  }

  toVideo(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  toStage(x, y) {
    return [x * this.scale + this.left, y * this.scale + this.top];
  }

  /** Zoom by a factor; what is at (x, y) of the stage stays there. */
  zoom(factor, x = this.stage.width / 2, y = this.stage.height / 2) {
    const scale = clamp(this.scale * factor, Math.min(this.fitting, 1) / 2, MOST);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.isFitted = false;
    this.keepInSight();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.isFitted = false;
    this.keepInSight();
  }

  /** Bring a place of the video to the middle. */
  center(x, y) {
    this.left = this.stage.width / 2 - x * this.scale;
    this.top = this.stage.height / 2 - y * this.scale;
    this.keepInSight();
  }

  keepInSight() {
    this.left = clamp(this.left, KEPT - this.width * this.scale, this.stage.width - KEPT);
    this.top = clamp(this.top, KEPT - this.height * this.scale, this.stage.height - KEPT);
  }

  /** What a later visit needs to look at the same place, or null for the whole frame. */
  place() {
    if (this.isFitted) return null;
    const [x, y] = this.toVideo(this.stage.width / 2, this.stage.height / 2);
    return { scale: this.scale, x, y };
  }

  restore(place) {
    if (!place) return;
    this.scale = clamp(place.scale, 0.01, MOST);
    this.isFitted = false;
    this.center(place.x, place.y);
  }
}
