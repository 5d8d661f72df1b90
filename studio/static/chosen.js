// Several objects chosen in the list, beside the one that is selected; the tracker and the list share them.

const ofStores = new WeakMap();

/** The chosen ids of a store: `ids` (a Set), `toggle`, `set`, `on`. */
export function chosenOf(store) {
  if (ofStores.has(store)) return ofStores.get(store);
  const listeners = new Set();
  const chosen = {
    ids: new Set(),
    set(ids) {
      chosen.ids = new Set(ids);
      for (const listener of listeners) listener();
    },
    toggle(id) {
      const ids = new Set(chosen.ids);
      if (!ids.delete(id)) ids.add(id);
      chosen.set(ids);
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  store.on("state", () => {
    const there = [...chosen.ids].filter((id) => store.object(id));
    if (there.length < chosen.ids.size) chosen.set(there);
  });
  ofStores.set(store, chosen);
  return chosen;
}
