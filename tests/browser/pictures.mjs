// Screenshots to look at: every place, light and dark, narrow to wide, and an embed. `cargo xtask pictures [FOLDER]`
import { join } from 'node:path';
import { chromium } from '@playwright/test';
import { chromiumFlags } from './playwright.config.mjs';

const folder = process.argv[2];
const address = process.env.LAB_URL;
if (!folder || !address) throw new Error('run `cargo xtask pictures`, which names the folder and serves the page');

const places = {
  attention: '?v=1&view=weights&n=64',
  compare: '?v=1&view=weights&variant=full,sliding_window&n=64',
  mask: '?v=1&view=mask&variant=sliding_window&n=512',
  speed: '?v=1&view=speed&variant=full,sliding_window,linear',
  embed: 'embed.html?v=1&variant=sliding_window&n=64&view=weights&run=auto',
};
const widths = [360, 1280, 2560];

const browser = await chromium.launch({
  executablePath: process.env.LAB_CHROMIUM ?? '/usr/bin/chromium',
  args: chromiumFlags,
});
for (const [place, path] of Object.entries(places)) {
  for (const theme of ['light', 'dark']) {
    for (const width of widths) {
      const page = await browser.newPage({ viewport: { width, height: width < 500 ? 780 : 900 }, colorScheme: theme });
      page.on('console', (message) => message.type() === 'error' && console.error(`${place}: ${message.text()}`));
      page.on('pageerror', (error) => console.error(`${place}: ${error}`));
      await page.goto(new URL(`${path}&theme=${theme}`, address).href);
      // Nothing in the page says "all drawn" in every place alike, and a picture is looked at by a person.
      await page.waitForTimeout(place === 'speed' ? 15_000 : 5_000);
      const file = `${place}-${theme}-${width}.png`;
      await page.screenshot({ path: join(folder, file) });
      console.log(file);
      await page.close();
    }
  }
}
await browser.close();
