// Runs .tflite files in LiteRT.js in headless Chromium: `node measure.mjs job.json`.
// The job names the browser, the files, the inputs and how often to run; what came of
// it is written to the file that the job names. See examples/litert_js.py.
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const job = JSON.parse(await readFile(process.argv[2], "utf8"));
const here = fileURLToPath(new URL(".", import.meta.url));
const types = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const number = pathname.match(/^\/file\/(\d+)$/)?.[1];
  const path = number ? job.files[Number(number)] : join(here, normalize(pathname));
  try {
    const body = await readFile(path);
    const type = types[extname(path)] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath: job.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"],
});
try {
  const page = await browser.newPage();
  const messages = [];
  page.on("pageerror", (error) => messages.push(String(error)));
  page.on("console", (message) => messages.push(message.text()));
  await page.goto(`${origin}/measure.html`);
  await page.waitForFunction(() => window.ready);
  const files = job.files.map((_, i) => `${origin}/file/${i}`);
  const results = await page
    .evaluate((given) => window.measure(given), { ...job, files })
    .catch((error) => {
      throw new Error([error.message, ...messages.slice(-5)].join("\n"));
    });
  const version = browser.version();
  await writeFile(job.output, JSON.stringify({ results, version }));
} finally {
  await browser.close();
  server.close();
}
