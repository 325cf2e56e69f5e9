// Numbers for people.

export function milliseconds(seconds) {
  if (seconds === null) return "–";
  const value = 1000 * seconds;
  return value < 9.95 ? `${value.toFixed(1)} ms` : value < 995 ? `${Math.round(value)} ms` : `${seconds.toPrecision(3)} s`;
}

export function rate(perSecond) {
  if (perSecond === null) return "–";
  return perSecond < 9.95 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString("en");
}

export const count = (number) => number.toLocaleString("en");

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function ago(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3_600) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3_600)} h ago`;
}
