// Playing at the video's speed: frames are left out when it is late, and it waits where none has come.

const LONGEST_LAG = 500; // milliseconds by which the clock may be ahead of the frames that have come

export class Playback {
  constructor(store) {
    this.store = store;
    this.isPlaying = false;
  }

  /** Play from the current frame to the end of the range, or of the video; from its start where one is at the end. */
  play() {
    if (this.isPlaying) return;
    const { range, frame, state } = this.store;
    const isInRange = range && range.first <= frame && frame <= range.last;
    this.first = isInRange ? range.first : 0;
    this.last = isInRange ? range.last : state.num_frames - 1;
    if (frame >= this.last) this.store.showFrame(this.first);
    this.isPlaying = true;
    this.begin(performance.now());
    this.store.fire("playing");
    this.request = requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    cancelAnimationFrame(this.request);
    this.store.fire("playing");
  }

  begin(now) {
    this.startTime = now;
    this.startFrame = this.store.frame;
  }

  tick(now) {
    const { store } = this;
    const { fps } = store.state;
    const due = Math.min(this.last, this.startFrame + Math.floor(((now - this.startTime) * fps) / 1000));
    let next = due;
    while (next > store.frame && !store.frames.get(next)) next--; // the last one that has come
    if (next > store.frame) store.showFrame(next);
    if (store.frame >= this.last) {
      this.pause();
      return;
    }
    if (((due - store.frame) * 1000) / fps > LONGEST_LAG) this.begin(now);
    this.request = requestAnimationFrame((later) => this.tick(later));
  }
}
