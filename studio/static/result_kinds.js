// The files that one can take away: in which group they are shown, and a line on each.

// Those that the server has beside these are shown as others.
const GROUPS = [
  [
    "Video",
    {
      video: ["Video with the objects drawn in", "MP4 with the sound; plays everywhere."],
      gif: ["GIF", "Small and without sound, for chats and issues."],
      webp: ["Animated WebP", "As the GIF, with all colours."],
    },
  ],
  [
    "Hide something",
    {
      blur: ["Blur", "Makes it unrecognisable, with a log of what was changed."],
      pixelate: ["Pixelate", "Coarse squares over it, with a log."],
      cover: ["Cover", "One colour over it: nothing of it is left."],
      remove_background: ["Remove the background", "One colour in place of all around it."],
    },
  ],
  [
    "Cut out",
    {
      cutout_png: ["PNG pictures", "One for each frame, see-through around the object; exact."],
      cutout_webm: ["WebM video", "See-through, for web pages."],
      cutout_prores: ["ProRes 4444 video", "See-through, for video editors; large."],
      cutout_gif: ["GIF", "Small, with hard edges."],
      cutout_webp: ["Animated WebP", "Small, with soft edges."],
    },
  ],
  [
    "Masks and data",
    {
      masks: ["Masks", "A palette PNG for each frame, as DAVIS has them."],
      jsonl: ["Annotations (JSON lines)", "Everything that is known; our own tools read it."],
      coco: ["COCO", "JSON with an image for each frame, and track ids."],
      youtube_vis: ["YouTube-VIS", "JSON with one annotation for each object."],
      mot: ["MOT", "Boxes as text, for tracking benchmarks."],
      mots: ["MOTS", "Masks as text, without overlaps."],
      yolo: ["YOLO data set", "Images and labels to train with."],
    },
  ],
];
export const KNOWN = Object.assign({}, ...GROUPS.map(([, kinds]) => kinds));

/** The groups of what a server offers: [[title, [{kind, label, hint, takesObjects}]]], those with nothing left out. */
export function groupsOf(results) {
  const entry = ({ kind, label, takes_objects: takesObjects, hint }) => ({
    kind,
    label: KNOWN[kind]?.[0] ?? label,
    hint: KNOWN[kind]?.[1] ?? hint ?? "",
    takesObjects,
  });
  const others = results.filter(({ kind }) => !KNOWN[kind]);
  const groups = GROUPS.map(([title, kinds]) => [
    title,
    Object.keys(kinds)
      .map((kind) => results.find((each) => each.kind === kind))
      .filter(Boolean)
      .map(entry),
  ]);
  return [...groups, ["Others", others.map(entry)]].filter(([, entries]) => entries.length);
}
