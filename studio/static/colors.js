// The colours that objects get, so that what is found looks as it will look; see PALETTE in grounded_sam2/render.py.
export const COLORS = [
  "#2563eb",
  "#ea580c",
  "#16a34a",
  "#c026d3",
  "#0891b2",
  "#dc2626",
  "#7c3aed",
  "#65a30d",
  "#db2777",
  "#0d9488",
  "#b45309",
  "#4f46e5",
];

/** The colour that the n-th new object will have, from 0. */
export function nextColor(store, n) {
  const last = Math.max(0, ...store.state.objects.map((object) => object.id));
  return COLORS[(last + 1 + n) % COLORS.length];
}
