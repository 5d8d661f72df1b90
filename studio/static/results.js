// Download: the files that one can take away, what each is, and those that were made.

import { chosenOf } from "./chosen.js";
import { h, icon, iconButton } from "./dom.js";
import { disclosure, drawnWhenChanged, panel, progressBar, refill, segments, sizeText } from "./parts.js";
import { KNOWN, groupsOf } from "./result_kinds.js";
import { isOver } from "./store.js";

export function mountResults(element, store, api) {
  const { body, note } = panel(element, "Download", "results");
  const files = h("ul", { class: "plain files", "data-test": "files", "aria-live": "polite" });
  const offers = h("div", {});
  body.append(files, offers);
  const chosen = chosenOf(store);
  const places = new Map(); // title of a group → where its objects are chosen
  const choices = new Map(); // title of a group → {ids (null: all), everythingElse, keepSound}
  const kindOf = (job) => store.state.results.find((each) => each.label === job.label)?.kind;
  const label = (job) => KNOWN[kindOf(job)]?.[0] ?? job.label;

  // ---- the files ----

  const results = () => store.jobs.filter((job) => job.kind === "result").reverse();

  function fileRow(job) {
    const away = iconButton("close", `Take ${label(job)} off the list`, () => (hiddenJobs.add(job.id), drawFiles()), {
      "data-key": `away-${job.id}`,
    });
    if (job.state === "done") {
      return h(
        "li",
        { class: "file" },
        h(
          "a",
          {
            class: "button primary file-link",
            href: api.fileUrl(store.token, job.id),
            download: job.file ?? "",
            "data-key": `file-${job.id}`,
            "data-test": `file-${kindOf(job) ?? job.id}`,
          },
          icon("download"),
          h("span", { class: "file-name" }, job.file ?? label(job)),
          job.size !== null && h("small", {}, sizeText(job.size)),
        ),
        away,
      );
    }
    if (!isOver(job)) {
      const part = job.total ? job.done / job.total : null;
      return h(
        "li",
        { class: "file making" },
        h(
          "div",
          { class: "row spread" },
          h("span", {}, label(job)),
          h("span", { class: "muted" }, job.state === "waiting" ? "waiting" : part === null ? "" : `${Math.round(100 * part)} %`),
          iconButton("close", `Cancel ${label(job)}`, () => store.cancelJob(job.id), {
            "data-key": `cancel-${job.id}`,
            "data-test": `cancel-${kindOf(job) ?? job.id}`,
          }),
        ),
        progressBar(`Made of ${label(job)}`, part),
      );
    }
    return h(
      "li",
      { class: "file over" },
      h("span", {}, job.state === "failed" ? `${label(job)}: ${job.error ?? "it failed."}` : `${label(job)} was cancelled.`),
      away,
    );
  }

  const hiddenJobs = new Set();
  function drawFiles() {
    const jobs = results().filter((job) => !hiddenJobs.has(job.id));
    const number = jobs.filter((job) => job.state === "done").length;
    note.textContent = number ? `${number} ready` : jobs.some((job) => !isOver(job)) ? "working" : "";
    refill(files, jobs.map(fileRow));
    drawButtons();
  }

  // ---- what is offered ----

  function make(title, { kind, takesObjects }) {
    const { ids, everythingElse, keepSound } = choices.get(title);
    const about = takesObjects ? { ...(ids && { ids: [...ids] }), everything_else: everythingElse } : {};
    const options = title === "Hide something" && keepSound ? { options: { keep_sound: true } } : {};
    store.startJob("result", { result: kind, ...about, ...options }).catch(() => {});
  }

  function offer(title, entry) {
    return h(
      "li",
      { class: "offer" },
      h("div", { class: "offer-words" }, h("span", {}, entry.label), entry.hint && h("small", {}, entry.hint)),
      h(
        "button",
        {
          type: "button",
          "aria-label": `Make ${entry.label}`,
          "data-test": `make-${entry.kind}`,
          "data-kind": entry.kind,
          onclick: () => make(title, entry),
        },
        "Make",
      ),
    );
  }

  /** What a group's files are about: all objects or some, or everything else. */
  function drawChoice(title) {
    const choice = choices.get(title);
    const { objects } = store.state;
    if (choice.ids) choice.ids = new Set([...choice.ids].filter((id) => store.object(id)));
    const ids = choice.ids ?? new Set(objects.map((object) => object.id));
    const toggle = (id) => {
      const next = new Set(ids);
      if (!next.delete(id)) next.add(id);
      choice.ids = next.size === objects.length ? null : next;
      drawChoice(title);
      drawButtons();
    };
    const name = title.replaceAll(" ", "-").toLowerCase();
    const change = (value) => {
      choice.everythingElse = value === "else";
      drawChoice(title);
    };
    refill(
      places.get(title),
      h(
        "div",
        { class: "object-chips", role: "group", "aria-label": "Which objects" },
        objects.length
          ? objects.map((object) =>
              h(
                "button",
                {
                  type: "button",
                  class: "object-chip",
                  "aria-pressed": String(ids.has(object.id)),
                  style: { "--object": object.color },
                  "data-key": `${name}-object-${object.id}`,
                  "data-test": `${name}-object-${object.id}`,
                  onclick: () => toggle(object.id),
                },
                h("span", { class: "swatch" }),
                object.name,
              ),
            )
          : h("span", { class: "hint" }, "There are no objects yet."),
      ),
      segments(
        "What is changed",
        `${name}-what`,
        { objects: title === "Cut out" ? "Keep these" : "These", else: "Everything else" },
        choice.everythingElse ? "else" : "objects",
        change,
      ),
      title === "Hide something" &&
        store.state.has_sound &&
        h(
          "label",
          { class: "check" },
          h("input", {
            type: "checkbox",
            checked: choice.keepSound,
            "data-key": `${name}-sound`,
            onchange: (event) => (choice.keepSound = event.target.checked),
          }),
          "Keep the sound (a voice tells who speaks)",
        ),
    );
  }

  function drawOffers() {
    const groups = groupsOf(store.state.results ?? []);
    const wereOpen = new Set([...offers.querySelectorAll("details[open]")].map((each) => each.dataset.test));
    places.clear();
    offers.replaceChildren(
      ...groups.map(([title, entries], index) => {
        choices.set(
          title,
          choices.get(title) ?? { ids: chosen.ids.size ? new Set(chosen.ids) : null, everythingElse: false, keepSound: false },
        );
        const takesObjects = entries.some((entry) => entry.takesObjects);
        if (takesObjects) places.set(title, h("div", { class: "stack choice" }));
        const name = `results-${title.replaceAll(" ", "-").toLowerCase()}`;
        const group = disclosure(
          title,
          name,
          takesObjects && places.get(title),
          h(
            "ul",
            { class: "plain offers" },
            entries.map((entry) => offer(title, entry)),
          ),
        );
        group.open = wereOpen.size ? wereOpen.has(name) : index === 0;
        return group;
      }),
    );
    if (!groups.length) offers.replaceChildren(h("p", { class: "empty" }, "This server makes no files."));
    for (const title of places.keys()) drawChoice(title);
    drawButtons();
  }

  /** What is being made cannot be asked for again, nor what is about no object. */
  function drawButtons() {
    const making = new Set(
      results()
        .filter((job) => !isOver(job))
        .map(kindOf),
    );
    for (const [title, entries] of groupsOf(store.state.results ?? [])) {
      for (const { kind, takesObjects } of entries) {
        const button = offers.querySelector(`[data-kind="${CSS.escape(kind)}"]`);
        const isAboutNothing = takesObjects && (!store.state.objects.length || choices.get(title)?.ids?.size === 0);
        if (button) button.disabled = making.has(kind) || isAboutNothing;
      }
    }
  }

  store.on("jobs", drawnWhenChanged(results, drawFiles));
  const onState = drawnWhenChanged(() => store.state.results, drawOffers);
  const onObjects = drawnWhenChanged(
    () => store.state.objects.map(({ id, name, color }) => [id, name, color]),
    () => {
      for (const title of places.keys()) drawChoice(title);
      drawButtons();
    },
  );
  store.on("state", () => {
    onState();
    onObjects();
  });
  onState();
  drawFiles();
}
