"""The style of the page of a diagnosis: light, dark, on a phone, on paper."""

# Okabe and Ito's palette, told apart with any colour vision; --main and --bad are its lighter ones on a dark page.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --card: #f5f7f8; --ink: #16191d; --quiet: #59616a; --rule: #d5dade; --grid: #e6eaed;
  --main: #0072B2; --bad: #D55E00; --third: #009E73; --fourth: #CC79A7; --zone: #D55E002e; --on-main: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1d2125; --ink: #e9ecef; --quiet: #a5adb5; --rule: #3a4148; --grid: #2a3036;
    --main: #56B4E9; --bad: #E69F00; --zone: #E69F0055; --on-main: #0b1a24;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 18px 64px; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.6rem, 5.4vw, 2.7rem); line-height: 1.15; margin: .15em 0 .5em; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 2.4em 0 .6em; padding-top: .7em; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; line-height: 1.4; margin: 0 0 .35em; }
h4 { font-size: .85rem; margin: 1em 0 .25em; }
p { margin: .4em 0; max-width: 46em; }
ul, ol { margin: .4em 0; padding-left: 1.3em; }
.quiet, .kicker, .sure, figcaption span { color: var(--quiet); }
.kicker, .sure { font-size: .92rem; max-width: none; }
.aid { margin-bottom: 1em; }

.verdict {
  background: var(--card); border-left: 7px solid var(--quiet); border-radius: 4px 10px 10px 4px; padding: 20px 22px;
}
.verdict.bad { border-color: var(--bad); }
.verdict.good { border-color: var(--third); }
.sign {
  display: inline-block; min-width: 1.25em; padding: 0 .2em; margin-right: .1em; border-radius: .2em;
  text-align: center; background: var(--quiet); color: var(--page);
}
.bad .sign { background: var(--bad); }
.good .sign { background: var(--third); }
.because { font-size: 1.08rem; }
.tiles {
  list-style: none; display: grid; grid-template-columns: repeat(auto-fit, minmax(min(140px, 100%), 1fr)); gap: 12px;
  margin: 16px 0 0; padding: 0;
}
.tiles li { background: var(--page); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; }
.tiles b { display: block; font-size: 1.45rem; line-height: 1.2; }
.tiles span { display: block; font-size: .85rem; line-height: 1.4; color: var(--quiet); }

.advice { list-style: none; counter-reset: advice; padding: 0; display: grid; gap: 12px; }
.advice > li {
  counter-increment: advice; position: relative; border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px 14px 54px;
}
.advice > li::before {
  content: counter(advice); position: absolute; left: 14px; top: 14px; width: 26px; height: 26px; border-radius: 50%;
  background: var(--main); color: var(--on-main); text-align: center; font: 700 .9rem/26px inherit; line-height: 26px;
}
.tag { color: var(--main); font-size: .78rem; font-weight: 700; margin: 0; }
.evidence ul { font-size: .92rem; }

dl { display: grid; grid-template-columns: minmax(9em, 15em) 1fr; gap: .35em 1.2em; margin: .5em 0; }
dt { font-weight: 600; }
dd { margin: 0; }
figure { margin: 0; }
figure.wide { margin: 0 0 1.2em; }
figcaption { font-size: .88rem; line-height: 1.4; margin-bottom: .3em; }
figcaption b { display: block; }
.wide figcaption { font-size: .95rem; max-width: 46em; margin-bottom: .6em; }
.scroll { overflow-x: auto; max-width: 100%; scrollbar-width: thin; }
.pictures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 22px 18px;
  margin: .6em 0 1em;
}
.pictures figure { display: flex; flex-direction: column; justify-content: space-between; }
details { margin: .7em 0; }
summary { cursor: pointer; color: var(--main); font-weight: 600; padding: .3em 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .7em; text-align: right; border-bottom: 1px solid var(--grid); overflow-wrap: normal; }
td { white-space: nowrap; }
thead th { border-color: var(--rule); vertical-align: bottom; }
th:first-child { text-align: left; min-width: 11em; max-width: 22em; overflow-wrap: anywhere; }
tbody th { font-weight: 500; }

svg { display: block; }
.small svg, .verdict svg { max-width: 100%; height: auto; }
.verdict svg { margin: 8px 0; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .start { text-anchor: start; }
svg .name, svg .quiet { fill: var(--quiet); }
svg .head { font-weight: 700; font-size: 12px; }
svg .halo { paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
.axis { stroke: var(--quiet); }
.grid { stroke: var(--grid); }
.chance { stroke: var(--quiet); stroke-width: 1.5; stroke-dasharray: 4 3; fill: none; }
.main { fill: var(--main); stroke: none; }
svg .bad { fill: var(--bad); stroke: none; }
.third { fill: var(--third); }
.fourth { fill: var(--fourth); }
.zone { fill: var(--zone); }
.track { fill: var(--grid); }
.ref { fill: var(--quiet); }
.unknown rect, rect.unknown { fill: none; stroke: var(--rule); }
.ring { fill: none; stroke: var(--bad); stroke-width: 2.5; }
svg .curve { fill: none; stroke: var(--main); stroke-width: 2; }
svg .main.stem { stroke: var(--main); stroke-width: 2.5; }
svg .bad.stem { stroke: var(--bad); stroke-width: 2.5; }
svg .big { stroke-width: 6; stroke-linejoin: round; }
svg .main.big { stroke: var(--main); }
svg .bad.big { stroke: var(--bad); }

@media (max-width: 560px) {
  main { padding: 12px 14px 48px; }
  .verdict { padding: 14px; }
  h2 { margin-top: 1.8em; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6em; }
  .advice > li { padding: 14px; }
  .advice > li > :first-child { margin-left: 38px; min-height: 26px; }
  .advice > li > .tag { line-height: 26px; margin-bottom: 6px; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --ink: #000; --quiet: #444; --rule: #bbb; --grid: #ddd;
    --main: #0072B2; --bad: #D55E00; --zone: #D55E002e; --on-main: #fff;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; }
  td { white-space: normal; }
  .scroll { overflow: visible; }
  .scroll svg { max-width: 100%; height: auto; }
  figure, li, tr, .verdict { break-inside: avoid; }
  h2, h3, figcaption { break-after: avoid; }
}
"""
