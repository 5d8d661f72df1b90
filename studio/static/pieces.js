// Everything on a frame: all pieces that the model sees, chosen and put together by clicks.

import { COLORS } from "./colors.js";
import { h, icon } from "./dom.js";
import { counted, disclosure, refill, saidWithUndo, thumbnail } from "./parts.js";

/** The chosen pieces as lists of keys, one for each object that they will become. */
export function groupsOf(items) {
  const groups = new Map();
  for (const { key, group } of items.filter((item) => item.accepted)) groups.set(group, [...(groups.get(group) ?? []), key]);
  return [...groups.values()];
}

export function mountPieces(element, store, api) {
  const place = h("div", { class: "stack", "aria-live": "polite" });
  const name = h("input", {
    type: "text",
    id: "pieces-name",
    placeholder: "object",
    "data-test": "pieces-name",
    "data-key": "pieces-name",
  });
  let isBusy = false;
  let isEmpty = false;

  async function busy(work) {
    isBusy = true;
    draw();
    try {
      await work();
    } catch {
      // the store has said what was wrong
    } finally {
      isBusy = false;
      draw();
    }
  }

  const everything = () =>
    busy(async () => {
      store.pause();
      const result = await store.do("everything", { frame: store.frame });
      isEmpty = !result.items.length;
      const items = result.items.map((item, index) => ({
        ...item,
        accepted: false,
        group: item.key,
        color: COLORS[index % COLORS.length],
      }));
      store.setCandidates(isEmpty ? null : { ...result, kind: "everything", items });
    });

  const accept = () =>
    busy(async () => {
      const { find, items } = store.candidates;
      const { ids } = await store.do("accept_pieces", {
        find,
        groups: groupsOf(items),
        ...(name.value.trim() && { class_name: name.value.trim() }),
      });
      store.setCandidates(null);
      if (ids.length) store.select(ids[0]);
      saidWithUndo(store, `${counted(ids.length, "object")} added. Next: Track.`);
    });

  const setItems = (change) => store.setCandidates({ ...store.candidates, items: store.candidates.items.map(change) });

  /** All chosen pieces become one object, in the colour of its first piece. */
  function putTogether() {
    const [first] = store.candidates.items.filter((item) => item.accepted);
    setItems((item) => (item.accepted ? { ...item, group: first.group, color: first.color } : item));
  }

  const takeApart = () => setItems((item, index) => ({ ...item, group: item.key, color: COLORS[index % COLORS.length] }));

  function piece(item, index) {
    const { width, height } = store.state;
    const isGrouped =
      item.accepted && store.candidates.items.some((other) => other.accepted && other !== item && other.group === item.group);
    const words = `Piece ${index + 1}${isGrouped ? `, together with others` : ""}`;
    return h(
      "button",
      {
        type: "button",
        class: "piece",
        "aria-pressed": String(item.accepted),
        "aria-label": words,
        title: words,
        style: { "--object": item.color },
        "data-key": `piece-${item.key}`,
        "data-test": `piece-${item.key}`,
        onclick: () =>
          setItems((other, at) =>
            other.key === item.key
              ? { ...other, accepted: !other.accepted, group: other.key, color: COLORS[at % COLORS.length] }
              : other,
          ),
      },
      thumbnail(api.frameUrl(store.token, store.candidates.frame, 640), item.box, [width, height], [44, 44]),
      isGrouped && h("span", { class: "piece-group" }, icon("merge")),
    );
  }

  function drawPieces() {
    const { items, frame } = store.candidates;
    const groups = groupsOf(items);
    const number = groups.length;
    return [
      h(
        "p",
        { class: "hint" },
        `${counted(items.length, "piece")} on frame ${frame}. Click the ones you want, here or in the picture; pieces of one thing are put together.`,
      ),
      h("div", { class: "pieces", "data-test": "pieces" }, items.map(piece)),
      h(
        "div",
        { class: "row" },
        h(
          "button",
          {
            type: "button",
            class: "grow",
            disabled: number < 2,
            "data-key": "pieces-merge",
            "data-test": "pieces-merge",
            onclick: putTogether,
          },
          "Put together",
        ),
        h(
          "button",
          {
            type: "button",
            class: "grow",
            disabled: groups.every((group) => group.length === 1),
            "data-key": "pieces-apart",
            onclick: takeApart,
          },
          "Take apart",
        ),
      ),
      h("label", { class: "field-row", for: "pieces-name" }, h("span", {}, "What they are"), name),
      h(
        "div",
        { class: "row" },
        h(
          "button",
          {
            type: "button",
            class: "primary grow",
            disabled: !number || isBusy,
            "data-key": "pieces-accept",
            "data-test": "pieces-accept",
            onclick: accept,
          },
          number ? `Accept ${counted(number, "object")}` : "Accept",
        ),
        h(
          "button",
          {
            type: "button",
            "data-key": "pieces-discard",
            "data-test": "pieces-discard",
            onclick: () => store.setCandidates(null),
          },
          "Discard",
        ),
      ),
    ];
  }

  function draw() {
    const isFound = store.candidates?.kind === "everything";
    refill(
      place,
      h("p", { class: "hint" }, "No words needed: shows all pieces of the picture, to take some of them."),
      h(
        "button",
        { type: "button", disabled: isBusy, "data-key": "everything", "data-test": "everything", onclick: everything },
        isBusy ? "Looking…" : `Everything on frame ${store.frame}`,
      ),
      isEmpty &&
        !isFound &&
        h(
          "div",
          { class: "notice" },
          h("p", {}, "No piece stands out on this frame. Try another one, or click on what you want in the picture."),
        ),
      isFound && drawPieces(),
    );
  }

  element.append(disclosure("Pick from everything on the frame", "find-everything", place));
  store.on("candidates", draw);
  for (const name of ["frame", "playing"]) store.on(name, () => store.playing || draw());
  draw();
}
