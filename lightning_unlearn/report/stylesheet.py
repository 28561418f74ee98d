"""The page's looks: one column that also fits a telephone, a light and a dark scheme, no font of its own."""

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --surface: #ffffff; --soft: #f5f6f8; --ink: #1b1f24; --muted: #5c6670; --line: #dde1e6;
  --accent: #2559a8; --forget: #c2452d; --unseen: #1f8a78; --test: #64748b; --reference: #7d4aa8;
  --shade: #00000022; --warn: #8a5a00; --warn-soft: #fdf5e3; --best: #eef3fb;
  --s1: #2559a8; --s2: #c2452d; --s3: #1f8a78; --s4: #7d4aa8; --s5: #b07d12; --s6: #64748b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --surface: #14171b; --soft: #1c2026; --ink: #e6e9ed; --muted: #9aa4b0; --line: #323943;
    --accent: #7eaaf2; --forget: #ef8068; --unseen: #58c2ad; --test: #94a3b8; --reference: #bd97e6;
    --shade: #00000088; --warn: #e8bb62; --warn-soft: #2b2415; --best: #1b2535;
    --s1: #7eaaf2; --s2: #ef8068; --s3: #58c2ad; --s4: #bd97e6; --s5: #e3b552; --s6: #94a3b8;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 72px; }
header { margin-bottom: 36px; }
h1 {
  font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 6px 0 10px; overflow-wrap: anywhere;
}
h2 { font-size: 1.2rem; line-height: 1.3; letter-spacing: -0.005em; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 26px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 46em; overflow-wrap: anywhere; }
section { padding: 28px 0 8px; border-top: 1px solid var(--line); }
.kicker { color: var(--muted); font-size: 0.875rem; margin: 0; }
.badge {
  display: inline-block; margin: 0 0 14px; padding: 2px 10px; border-radius: 99px; font-size: 0.8125rem;
  font-weight: 600; color: var(--warn); background: var(--warn-soft);
}
.badge.calm { color: var(--muted); background: var(--soft); }
.lead { font-size: 1.125rem; line-height: 1.55; margin-bottom: 4px; }
.quiet, figcaption, caption { color: var(--muted); font-size: 0.875rem; }
.warnings, .notes {
  margin: 16px 0 0; padding: 10px 16px 10px 34px; border-radius: 8px; font-size: 0.9375rem;
}
.warnings { background: var(--warn-soft); }
.warnings li::marker { color: var(--warn); }
.notes { background: var(--soft); }
li { overflow-wrap: anywhere; margin: 3px 0; max-width: 46em; }
.limits { padding-left: 20px; margin: 0 0 12px; }
.limits li { margin: 8px 0; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 176px), 1fr)); gap: 12px;
  margin: 24px 0 0; padding: 0;
}
.tile { background: var(--soft); border-radius: 10px; padding: 14px 16px; }
.tile dt { color: var(--muted); font-size: 0.8125rem; line-height: 1.35; }
.tile dd { margin: 0; }
.tile .value {
  font-size: 1.5rem; font-weight: 600; letter-spacing: -0.01em; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere;
}
.tile .beside { color: var(--muted); font-size: 0.8125rem; line-height: 1.4; }
.scroll {
  overflow-x: auto; margin: 4px 0 18px; background:
    linear-gradient(to left, var(--page) 30%, transparent) right / 44px 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 18px 100% no-repeat scroll;
}
table {
  border-collapse: collapse; min-width: 100%; font-size: 0.9375rem; font-variant-numeric: tabular-nums;
}
caption { text-align: left; padding: 0 0 6px; }
th, td { padding: 7px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child { padding-left: 0; position: sticky; left: 0; background: var(--page); }
td:last-child, th:last-child { padding-right: 2px; }
thead th {
  color: var(--muted); font-weight: 500; font-size: 0.8125rem; line-height: 1.3; vertical-align: bottom;
  border-bottom-color: var(--muted);
}
tbody th { font-weight: 500; max-width: 21em; min-width: 12em; overflow-wrap: anywhere; }
td { overflow-wrap: break-word; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
thead th.n { min-width: 5.2em; }
tr.best th, tr.best td { font-weight: 650; }
tr.level th, tr.level td { color: var(--muted); font-style: italic; }
tr.rule th, tr.rule td { border-top: 1px solid var(--muted); }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 12px 40px;
  align-items: start;
}
figure { margin: 8px 0 20px; max-width: 560px; }
figure svg {
  display: block; width: 100%; height: auto; overflow: visible; font-family: inherit;
  stroke-linejoin: round; font-variant-numeric: tabular-nums;
}
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 4px 12px; }
.sheet img { width: 96px; height: auto; image-rendering: pixelated; display: block; }
.sheet figcaption { font-size: 0.75rem; overflow-wrap: anywhere; }
figcaption { margin-top: 6px; max-width: 44em; }
details { margin: 4px 0 18px; }
summary { cursor: pointer; color: var(--accent); font-size: 0.9375rem; padding: 4px 0; }
pre {
  overflow-x: auto; margin: 8px 0 18px; padding: 14px 16px; border-radius: 8px; background: var(--soft);
  font: 0.8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
td code, .mono { font: 0.875em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
td code { white-space: nowrap; }
footer { margin-top: 24px; color: var(--muted); font-size: 0.8125rem; }
@media (max-width: 560px) {
  main { padding: 22px 16px 48px; }
  h1 { font-size: 1.5rem; }
  .lead { font-size: 1.03rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile { padding: 10px 12px; }
  .tile .value { font-size: 1.25rem; }
  th, td { padding: 7px 8px; }
  tbody th { max-width: 10.5em; min-width: 9.8em; }
}
@media print {
  main { max-width: none; padding: 0; }
  section, figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
}
"""
