// Review: the doubtful places, the most doubtful first; one looks, says that it is right, or corrects it.

import { h, icon } from "./dom.js";
import { openDoubts, rememberRight } from "./doubts.js";
import { drawnWhenChanged, panel, refill, saidWithUndo, thumbnail } from "./parts.js";

const PAGE = 20;
const REASONS = {
  "mask score": "Its outline is uncertain",
  presence: "Not sure that it is there",
  "area jump": "Its size jumps",
  overlap: "It lies on another object",
  "sides disagree": "Forward and backward disagree",
  vanishes: "It disappears here",
};

/** Why a place is doubtful, for people. */
export const reasonOf = (doubt) => REASONS[doubt.reason] ?? doubt.reason;
const keyOf = (doubt) => `${doubt.id}-${doubt.frame}-${doubt.reason}`;
const framesOf = ({ first, last }) => (first === last ? `frame ${first}` : `frames ${first} to ${last}`);

export function mountReview(element, store, api) {
  const { body, note } = panel(element, "Review", "review");
  const head = h("div", { class: "stack" });
  const list = h("ol", { class: "plain doubts", "data-test": "doubts" });
  body.append(head, list);
  const state = { at: -1, key: null, shown: PAGE };
  const boxes = new Map(); // `${id}-${frame}` → box of an object on a frame, null where it is not seen
  let places = [];
  let isFetching = false;

  /** Read the doubts anew, and stay at the place one was at, or at the one that has come in its stead. */
  function update() {
    places = openDoubts(store);
    const again = places.findIndex((doubt) => keyOf(doubt) === state.key);
    if (again >= 0) state.at = again;
    else if (state.key !== null) state.at = Math.min(state.at, places.length) - 1;
    state.key = places[state.at] ? keyOf(places[state.at]) : null;
    draw();
  }

  function goTo(index) {
    const doubt = places[(index + places.length) % places.length];
    if (!doubt) return;
    state.at = places.indexOf(doubt);
    state.key = keyOf(doubt);
    state.shown = Math.max(state.shown, state.at + 1);
    store.select(doubt.id);
    store.setFrame(doubt.frame);
    draw();
    list.querySelector(".current")?.scrollIntoView({ block: "nearest" });
  }

  async function looksRight() {
    const doubt = places[state.at];
    if (!doubt) return goTo(0);
    const { name } = store.object(doubt.id);
    try {
      await store.do("pin", { id: doubt.id, frame: doubt.frame });
    } catch {
      return; // the store has said what was wrong
    }
    rememberRight(store, doubt);
    saidWithUndo(store, `${name} is right on frame ${doubt.frame}: it is a barrier now.`);
    const index = state.at;
    state.key = null;
    update();
    if (places.length) goTo(Math.min(index, places.length - 1));
  }

  function row(doubt, index) {
    const object = store.object(doubt.id);
    const isCurrent = index === state.at;
    const size = [store.state.width, store.state.height];
    const level = doubt.doubt > 0.66 ? "high" : doubt.doubt > 0.33 ? "middle" : "low";
    return h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: `doubt${isCurrent ? " current" : ""}`,
          "aria-current": isCurrent ? "true" : null,
          style: { "--object": object.color },
          "data-key": `doubt-${keyOf(doubt)}`,
          "data-test": `doubt-${index}`,
          onclick: () => goTo(index),
        },
        thumbnail(
          api.frameUrl(store.token, doubt.frame, 320),
          boxes.get(`${doubt.id}-${doubt.frame}`),
          size,
          [64, 44],
          object.color,
        ),
        h(
          "span",
          { class: "doubt-words" },
          h("strong", {}, reasonOf(doubt)),
          h("small", {}, h("span", { class: "swatch" }), h("span", { class: "doubt-name" }, `${object.name},`), framesOf(doubt)),
        ),
        h(
          "span",
          { class: `doubt-level ${level}`, title: `Doubt ${Math.round(100 * doubt.doubt)} %` },
          h("i"),
          h("i"),
          h("i"),
          h("span", { class: "visually-hidden" }, `${level} doubt`),
        ),
      ),
    );
  }

  function draw() {
    note.textContent = places.length ? String(places.length) : "";
    const isAnythingTracked = Object.values(store.timeline?.objects ?? {}).some(({ states }) =>
      states.some(([name]) => name && name !== "corrected"),
    );
    refill(
      head,
      places.length
        ? [
            h("p", { class: "hint" }, "Is it right? If not, correct it in the picture, then track again."),
            h(
              "div",
              { class: "row review-actions" },
              h(
                "button",
                {
                  type: "button",
                  "aria-label": "Previous doubtful place",
                  title: "Previous",
                  "data-key": "review-previous",
                  "data-test": "review-previous",
                  onclick: () => goTo(state.at < 0 ? -1 : state.at - 1),
                },
                icon("prev"),
              ),
              h(
                "button",
                {
                  type: "button",
                  class: "grow",
                  disabled: state.at < 0,
                  "data-key": "looks-right",
                  "data-test": "looks-right",
                  title: "Keep this mask: tracking will never change it",
                  onclick: looksRight,
                },
                icon("check"),
                "Looks right",
              ),
              h(
                "button",
                {
                  type: "button",
                  "aria-label": "Next doubtful place",
                  title: "Next",
                  "data-key": "review-next",
                  "data-test": "review-next",
                  onclick: () => goTo(state.at + 1),
                },
                icon("next"),
              ),
            ),
          ]
        : h(
            "p",
            { class: "empty" },
            isAnythingTracked ? "Nothing looks doubtful." : "After tracking, the places worth a look are listed here.",
          ),
    );
    refill(
      list,
      places.slice(0, state.shown).map(row),
      places.length > state.shown &&
        h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: "link",
              "data-key": "doubts-more",
              onclick: () => ((state.shown += PAGE), draw(), fetchBoxes()),
            },
            `${places.length - state.shown} more`,
          ),
        ),
    );
  }

  /** Fetch where the objects are on the listed frames, for thumbnails of what is around them. */
  async function fetchBoxes() {
    if (isFetching) return;
    isFetching = true;
    try {
      for (let doubt; (doubt = places.slice(0, state.shown).find(({ id, frame }) => !boxes.has(`${id}-${frame}`)));) {
        const { id, frame } = doubt;
        const cells = store.masks.get(frame) ?? (await api.masks(store.token, frame, frame))[frame];
        const cell = cells.find((each) => each.id === id);
        boxes.set(`${id}-${frame}`, cell?.area ? cell.box : null);
      }
      drawBoxes();
    } catch {
      // whole frames are shown in place of parts
    } finally {
      isFetching = false;
    }
  }

  const drawBoxes = drawnWhenChanged(
    () => places.slice(0, state.shown).map(({ id, frame }) => boxes.get(`${id}-${frame}`)),
    draw,
  );
  store.on("doubts", () => {
    boxes.clear();
    update();
    fetchBoxes();
  });
  store.on(
    "timeline",
    drawnWhenChanged(() => Object.keys(store.timeline.objects), draw),
  );
  store.on(
    "state",
    drawnWhenChanged(() => store.state.objects.map(({ id, name, color }) => [id, name, color]), update),
  );
  update();
}
