// The notation of a text prompt, see grounded_sam2/prompts.py: "dog. red ball@0.4. not a toy dog."

// A dot inside a number ("3.5 inch disk", "@.5") belongs to the phrase.
const SEPARATOR = /(?<![\d@])\.|\.(?!\d)|[,;\n\r。，、；]/;

/** The entries of a prompt as {text, threshold}; threshold null is the common one. */
export function readTerms(prompt) {
  const terms = new Map();
  for (const part of prompt.split(SEPARATOR)) {
    const entry = part.trim().replace(/\s+/g, " ").toLowerCase();
    if (!/[\p{L}\p{N}]/u.test(entry)) continue;
    const marked = /^(.*?)@(\d*\.?\d+)(=.*)?$/.exec(entry);
    const text = marked ? marked[1].trim() + (marked[3] ?? "") : entry;
    const threshold = marked && Number(marked[2]) <= 1 ? Number(marked[2]) : null;
    if (!terms.has(text)) terms.set(text, { text, threshold });
  }
  return [...terms.values()];
}

/** Entries as one prompt; inverse of `readTerms`. */
export function writeTerms(terms) {
  return terms
    .map(({ text, threshold }) => {
      if (threshold === null) return `${text}.`;
      const [name, ...aliases] = text.split("=");
      return `${[`${name}@${Number(threshold.toFixed(2))}`, ...aliases].join("=")}.`;
    })
    .join(" ");
}

/** Whether a text that is being typed ends an entry: "dog." does, "3." may go on. */
export function endsTerm(text) {
  return /[,;。，、；]$|(?<![\d@])\.$/.test(text);
}

/** A state's search as entries and a common threshold. */
export function readSearch(search) {
  const terms = readTerms(search.text_prompt ?? "");
  const given = search.box_threshold;
  if (typeof given === "number") return { terms, threshold: given };
  for (const term of terms) term.threshold ??= given[term.text.split("=")[0]] ?? null;
  return { terms, threshold: 0.35 };
}
