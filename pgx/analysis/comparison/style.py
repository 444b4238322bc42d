"""Style sheet of the comparison's HTML page."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --line: #d1d9e0; --ground: #ffffff; --head: #f6f8fa;
  --group-0: #0072b2; --group-1: #c84f00; --group-2: #00805c; --group-3: #b8578f; --group-4: #b37400;
  --group-5: #2a8fc4;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --ground: #0d1117; --head: #151b23;
    --group-0: #4aa8e0; --group-1: #ff8a4c; --group-2: #2fc79a; --group-3: #e39ac2; --group-4: #f0b93a;
    --group-5: #9ad8ff;
  }
}
body { margin: 0 auto; max-width: 90rem; padding: 1rem clamp(1rem, 2.5vw, 3rem); background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
section { border-bottom: 1px solid var(--line); padding-bottom: 1.5rem; margin-bottom: 1.5rem; }
h1, h2 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: clamp(1.4rem, 1rem + 1.6vw, 2.1rem); margin: 0 0 .8rem; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 0; }
.kicker { margin: 0 0 .4rem; }
p, li { color: var(--dim); overflow-wrap: anywhere; margin: .2rem 0; }
.details { max-width: 60rem; } .details p { color: var(--ink); margin: .35rem 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 1rem 0 0; padding: 0; }
.legend li { color: var(--ink); } .legend svg { vertical-align: middle; } small { color: var(--dim); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem 1.5rem;
  margin-top: .8rem; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .875rem; font-weight: 600; margin-bottom: .2rem; }
figure svg { display: block; width: 100%; height: auto; }
.large { display: none; }
@media (min-width: 56rem) {
  .two { grid-column: span 2; } .large { display: block; } .small { display: none; }
}
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--head); font-weight: 600; }
th.text, td.text { text-align: left; }
"""
