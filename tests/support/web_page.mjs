// Uses the page of examples/serve.py as a person would: `node web_page.mjs job.json`.
// Prints as JSON what the page showed after each step, and writes a screenshot.
import { readFile } from "node:fs/promises";
import { chromium } from "../../examples/web/node_modules/playwright-core/index.mjs";

const job = JSON.parse(await readFile(process.argv[2], "utf8"));
const browser = await chromium.launch({
  executablePath: job.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1040, height: 640 } });
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(job.url);
  const text = (selector) => page.locator(selector).innerText();
  const steps = {};
  // What is shown once `change` has led to another verdict, and no work is left.
  const shown = async (name, change) => {
    await page.evaluate(() => {
      document.querySelector("#verdict").textContent = "";
    });
    await change();
    await page.waitForFunction(
      () =>
        document.querySelector("#verdict").textContent &&
        !document.querySelector("#compare").disabled,
    );
    steps[name] = { verdict: await text("#verdict") };
    for (const network of ["dense", "sparse"]) {
      steps[name][network] = {
        class: await text(`#${network} .class`),
        shares: await page.locator(`#${network} .classes li`).allInnerTexts(),
        latency: await text(`#${network} .latency`),
        size: await text(`#${network} .size`),
      };
    }
  };
  await page.waitForFunction(
    () => !/Loading/.test(document.querySelector("#about").textContent),
  );
  steps.about = await text("#about");
  if (await page.evaluate(() => document.body.dataset.ready === "yes")) {
    await shown("sample", () => page.locator("#samples button").nth(job.sample).click());
    await shown("drawn", async () => {
      await page.locator("#clear").click();
      const box = await page.locator("#drawing").boundingBox();
      await page.mouse.move(box.x + 60, box.y + 60);
      await page.mouse.down();
      await page.mouse.move(box.x + 200, box.y + 120, { steps: 5 });
      await page.mouse.move(box.x + 90, box.y + 220, { steps: 5 });
      await page.mouse.up();
    });
    await shown("file", () => page.locator("#file").setInputFiles(job.image));
    await page.locator("#file").setInputFiles(job.noImage);
    await page.waitForFunction(() =>
      /not an image/.test(document.querySelector("#verdict").textContent),
    );
    steps.noImage = await text("#verdict");
    await shown("sample again", () =>
      page.locator("#samples button").nth(job.sample).click(),
    );
    await page.locator("#compare").click();
    await page.waitForFunction(() =>
      /Latency/.test(document.querySelector("#comparison").textContent),
    );
    steps.comparison = await text("#comparison");
  }
  await page.screenshot({ path: job.screenshot });
  console.log(JSON.stringify({ ...steps, errors }));
} finally {
  await browser.close();
}
