// Asks about a picture by HTTP alone; in a page, or here:  node fetch.mjs http://localhost:8080 KEY MODEL cat.jpg
import { readFile } from "node:fs/promises";

export async function classify(origin, key, model, picture, options = {}) {
  const answer = await fetch(`${origin}/v1/models/${encodeURIComponent(model)}:classify?top_k=2`, {
    method: "POST",
    headers: { "x-api-key": key, "content-type": "image/jpeg" },
    body: picture, // in a page: a File, as <input type="file"> has it
    ...options,
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status}: ${told.message}`);
  return told.classes;
}

const [origin, key, model, file] = process.argv.slice(2);
for (const { label, probability } of await classify(origin, key, model, await readFile(file))) {
  console.log(`${label} ${probability.toFixed(2)}`);
}
