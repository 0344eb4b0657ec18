// Screenshots to look at: every place, light and dark, narrow to wide, an embed and the tutorial; whole pages, as far as they go.
// `cargo xtask pictures [FOLDER]`; LAB_PICTURES=speed-dark,embed takes only those whose name starts so.
import { join } from 'node:path';
import { chromium } from '@playwright/test';
import { chromiumFlags } from './playwright.config.mjs';

const folder = process.argv[2];
const address = process.env.LAB_URL;
if (!folder || !address) throw new Error('run `cargo xtask pictures`, which names the folder and serves the page');

const plates = (count) => async (page) => {
  for (let plate = 0; plate < count; plate++) {
    await page.locator(`#plate-${plate}[data-drawn=exact]`).waitFor({ timeout: 120_000 });
  }
};
const sweep = async (page) => {
  await page.locator('#sweep-start:enabled').waitFor({ timeout: 60_000 });
  await page.locator('#sweep-from').selectOption('64');
  await page.locator('#sweep-to').selectOption('512');
  await page.locator('#sweep-start').click();
  await page.locator('#sweep-status').filter({ hasText: 'Done' }).waitFor({ timeout: 240_000 });
};

const race = async (page) => {
  await page.locator('#race-start:enabled').waitFor({ timeout: 60_000 });
  await page.locator('#race-controls[data-doing=ready]').waitFor({ timeout: 60_000 });
  await page.locator('#race-start').click();
  await page.locator('#race-controls[data-doing=done]').waitFor({ timeout: 240_000 });
};

const places = {
  attention: ['?v=1&view=weights&n=64', plates(1)],
  compare: ['?v=1&view=weights&variant=full,sliding_window&n=64', plates(2)],
  mask: ['?v=1&view=mask&variant=sliding_window&n=512', plates(1)],
  speed: ['?v=1&view=speed&variant=full,sliding_window,linear', sweep],
  train: ['?v=1&view=train&train.steps=150', race],
  linear: ['?v=1&view=weights&variant=linear&n=512', plates(1)],
  tutorial: [
    'tutorial.html?v=1',
    async (page) => {
      await page.frameLocator('#window').locator('#plate-0[data-drawn=exact]').waitFor({ timeout: 60_000 });
      await page.locator('#loss').scrollIntoViewIfNeeded();
      await page.locator('#loss #plate-0[data-drawn=exact]').waitFor({ timeout: 60_000 });
    },
  ],
  embed: ['embed.html?v=1&variant=sliding_window&n=64&view=weights&run=auto', plates(1)],
};

const wanted = (process.env.LAB_PICTURES ?? '').split(',');
const browser = await chromium.launch({
  executablePath: process.env.LAB_CHROMIUM ?? '/usr/bin/chromium',
  args: chromiumFlags,
});
let failed = 0;
for (const [place, [path, ready]] of Object.entries(places)) {
  for (const theme of ['light', 'dark']) {
    for (const width of [360, 1280, 2560]) {
      const name = `${place}-${theme}-${width}`;
      if (!wanted.some((start) => name.startsWith(start))) continue;
      const page = await browser.newPage({ viewport: { width, height: width < 500 ? 780 : 900 }, colorScheme: theme });
      page.on('console', (message) => message.type() === 'error' && console.error(`${name}: ${message.text()}`));
      page.on('pageerror', (error) => console.error(`${name}: ${error}`));
      await page.goto(new URL(`${path}&theme=${theme}`, address).href);
      // A picture of what went wrong is worth more than none.
      await ready(page).catch((error) => {
        failed += 1;
        console.error(`${name}: ${error.message}`);
      });
      await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
      console.log(`${name}.png`);
      await page.close();
    }
  }
}
await browser.close();
process.exitCode = failed ? 1 : 0;
