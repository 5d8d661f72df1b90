// Which doubtful places are still open: those that a person has called right are not asked about again.

import { keep, kept } from "./memory.js";

const nameOf = (store) => `right:${store.token}`;

/**
 * The doubts of a store that are to be looked at, the most doubtful first. A mask that was called right is a barrier
 * and is not doubted, but its neighbours in the same run may be: they are left out as long as they are no more doubtful
 * than the worst one, which is right.
 */
export function openDoubts(store) {
  const right = kept(nameOf(store)) ?? [];
  const isRight = (doubt) =>
    right.some(
      (each) =>
        each.id === doubt.id &&
        each.reason === doubt.reason &&
        each.first <= doubt.first &&
        doubt.last <= each.last &&
        doubt.doubt <= each.doubt &&
        store.object(each.id)?.given.includes(each.frame),
    );
  // what was corrected a moment ago is no doubt, though the list may be older
  const isCorrected = (doubt) => store.object(doubt.id).given.includes(doubt.frame);
  return store.doubts.filter((doubt) => store.object(doubt.id) && !isCorrected(doubt) && !isRight(doubt));
}

/** A person has called the worst frame of a run right. */
export function rememberRight(store, doubt) {
  const { id, frame, reason, first, last } = doubt;
  const others = (kept(nameOf(store)) ?? []).slice(-500);
  keep(nameOf(store), [...others, { id, frame, reason, first, last, doubt: doubt.doubt }]);
}

/** The open doubt nearest after a frame, or the first one of all; null where there is none. */
export function doubtAfter(store, frame) {
  const places = openDoubts(store).sort((one, other) => one.frame - other.frame);
  return places.find((doubt) => doubt.frame > frame) ?? places[0] ?? null;
}
