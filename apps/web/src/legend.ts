/** Classes with their colours and shares; choosing one shows it alone. */

import type { Artifact } from "./artifact";
import { byId, element } from "./dom";
import type { Plane } from "./resample";

const list = byId("legend");
const SMALLEST_SHARE = 0.002;

/** Share of the picture by class index. */
export function classShares(map: Plane<Uint16Array>, classes: number): number[] {
  const counts = new Array<number>(classes).fill(0);
  for (const index of map.data) if (index < classes) counts[index]!++;
  return counts.map((count) => count / map.data.length);
}

/** List the classes that occur, the largest first. */
export function showLegend(
  artifact: Artifact,
  shares: readonly number[],
  highlighted: number | null,
  choose: (index: number) => void,
): void {
  const order = shares.map((_, index) => index).filter((index) => shares[index]! >= SMALLEST_SHARE);
  order.sort((a, b) => shares[b]! - shares[a]!);
  const focused = (document.activeElement as HTMLElement | null)?.dataset.class;
  list.replaceChildren(
    ...order.map((index) => {
      const pressed = String(index === highlighted);
      const button = element("button", "", { type: "button", "aria-pressed": pressed, "data-class": String(index) });
      const swatch = element("i", "", { "aria-hidden": "true" });
      swatch.style.background = `rgb(${artifact.palette[index]!.join(" ")})`;
      const share = shares[index]! < 0.01 ? "< 1 %" : `${Math.round(shares[index]! * 100)} %`;
      button.append(swatch, element("span", artifact.class_names[index]), element("span", share, { class: "share" }));
      button.addEventListener("click", () => choose(index));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
  if (focused !== undefined) list.querySelector<HTMLElement>(`[data-class="${focused}"]`)?.focus();
}
