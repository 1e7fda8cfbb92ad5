// Opens the page of a relay and waits until what it lists is like this: node landing.mjs URL PATTERN. What the
// list says then is printed, and whatever the console has shown in red is an error.

import { chromium } from "playwright-core";

const [url, pattern] = process.argv.slice(2);
const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage();
const errors = [];
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
page.on("pageerror", (error) => errors.push(error.stack));
await page.goto(url);
const listed = () => page.locator("#paths").innerText();
await page
    .waitForFunction(
        (pattern) => new RegExp(pattern, "s").test(document.getElementById("paths").innerText),
        pattern,
        { timeout: 20_000 },
    )
    .catch((error) => errors.push(error.message));
console.log(await listed());
await browser.close();
console.error(errors.join("\n"));
process.exit(errors.length === 0 ? 0 : 1);
