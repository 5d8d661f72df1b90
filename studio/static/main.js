// The stage replaces this; it shows that the server works.
export async function start(element) {
    const answer = await fetch("studio/samples");
    element.textContent = JSON.stringify(await answer.json());
}
