/** Something that the user can do something about; shown as it is. Anything else is a bug. */
export class Failure extends Error {
  override name = "Failure";
}

/** What to show for anything that was thrown. */
export function explain(error: unknown): string {
  if (error instanceof Error) return error.name === "Failure" ? error.message : `${error.name}: ${error.message}`;
  return String(error);
}
