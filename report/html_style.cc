#include "report/html_style.h"

namespace trireme::internal {

// Hues are told apart also by readers who see red and green alike; every pair of text and ground
// has a contrast of at least 4.5 to 1.
const std::string_view kStyleSheet = R"css(
:root{color-scheme:light dark;
--ground:#f7f7f5;--card:#fff;--ink:#1b1d21;--soft:#5c626d;--hair:#e4e4e0;--grid:#ecece8;--accent:#2563c9;--mark:#fff6dc;
--h0:#2563c9;--h1:#d9611a;--h2:#14876a;--h3:#8a46c8;--h4:#c22f56;--h5:#0c86a0;--h6:#9a7405;--h7:#68707c;
--r0:#0b8f8f;--r1:#2280c4;--r2:#4467d8;--r3:#6f50d4;--r4:#9a3fc0;--r5:#bf3394;--r6:#cc3a62;--r7:#cf5a22}
@media (prefers-color-scheme:dark){:root{
--ground:#121417;--card:#1a1d21;--ink:#e9eaec;--soft:#a0a7b2;--hair:#2b3036;--grid:#272b31;--accent:#7fb0ff;--mark:#3a3216;
--h0:#6ea8ff;--h1:#ff9a5c;--h2:#43cfa4;--h3:#c194ff;--h4:#ff7d9c;--h5:#4fcbe6;--h6:#e2bd4f;--h7:#9aa3b1;
--r0:#3ccfc9;--r1:#5ab4f2;--r2:#86a2ff;--r3:#a98fff;--r4:#cb85f0;--r5:#ee7cc6;--r6:#fb8299;--r7:#ff9e6b}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 72px}
header h1{font-size:32px;line-height:1.15;letter-spacing:-.02em;margin:0;font-weight:680;overflow-wrap:anywhere}
header .line{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center}
header p{color:var(--soft);margin:8px 0 0;max-width:75ch;overflow-wrap:anywhere}
.badge{font-size:13px;font-weight:600;padding:2px 10px;border-radius:99px;border:1px solid var(--hair);background:var(--card);color:var(--soft);white-space:nowrap}
nav{margin:20px 0 0;font-size:14px;display:flex;flex-wrap:wrap;gap:4px 18px}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
h2{font-size:20px;letter-spacing:-.01em;margin:48px 0 14px;font-weight:650;scroll-margin-top:12px}
p{margin:0 0 12px;max-width:75ch}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));margin:28px 0 0;background:var(--card);
border:1px solid var(--hair);border-radius:12px;overflow:hidden}
.figures div{padding:14px 18px 12px;box-shadow:1px 1px 0 var(--hair)}
.figures b{display:block;font-size:24px;line-height:1.25;font-weight:640;letter-spacing:-.015em;font-variant-numeric:tabular-nums;white-space:nowrap}
.figures span{display:block;font-size:13px;color:var(--ink)}
.figures small{display:block;font-size:12px;color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;margin:0 0 16px}
.grid figure.wide{grid-column:1/-1}
.three{grid-template-columns:repeat(3,minmax(0,1fr))}.three svg text{font-size:16px}
figure{margin:0;background:var(--card);border:1px solid var(--hair);border-radius:12px;padding:16px 18px 10px;min-width:0;display:flex;flex-direction:column}
figcaption h3{font-size:15px;margin:0;font-weight:640}
figcaption p{font-size:13px;line-height:1.4;color:var(--soft);margin:2px 0 0}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 16px;margin:8px 0 2px;padding:0;font-size:13px}
.legend li{display:flex;align-items:center;gap:6px;min-width:0}
.legend span{color:var(--ink);overflow:hidden;text-overflow:ellipsis}.legend b{color:var(--soft);font-weight:500;font-variant-numeric:tabular-nums}
.legend i{flex:none;width:16px;height:0;border-top:2.5px solid currentColor;border-radius:2px}
.legend i.dashed{border-top-style:dashed}
.legend i.dot{width:8px;height:8px;border:0;border-radius:50%;background:currentColor}
.legend i.block{width:11px;height:11px;border:0;border-radius:3px;background:currentColor}
figure>svg{display:block;width:100%;height:auto;margin-top:auto;padding-top:6px;overflow:visible}
svg text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg text.name{font-size:13px;fill:var(--ink)}
svg .gridline{stroke:var(--grid)}svg .axis{stroke:var(--soft);stroke-opacity:.55}
svg .rule{stroke:var(--soft);stroke-dasharray:3 4}
svg .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round;vector-effect:non-scaling-stroke}
svg .dashed{stroke-dasharray:6 4;stroke-width:1.75}
svg .faint{stroke-width:1;stroke-opacity:.32}
svg .band{fill:currentColor;fill-opacity:.14;stroke:none}
svg .point{fill:currentColor;stroke:var(--card);stroke-width:1}
svg .whisker{stroke:currentColor;stroke-width:1.5}
svg .bar{fill:currentColor;stroke:var(--card);stroke-width:1}
.h0{color:var(--h0)}.h1{color:var(--h1)}.h2{color:var(--h2)}.h3{color:var(--h3)}.h4{color:var(--h4)}.h5{color:var(--h5)}.h6{color:var(--h6)}.h7{color:var(--h7)}
.r0{color:var(--r0)}.r1{color:var(--r1)}.r2{color:var(--r2)}.r3{color:var(--r3)}.r4{color:var(--r4)}.r5{color:var(--r5)}.r6{color:var(--r6)}.r7{color:var(--r7)}
.muted{color:var(--soft)}.rest{color:var(--hair)}
figure>svg.on-narrow{display:none}
.empty{color:var(--soft);padding:24px 0;text-align:center}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--hair);border-radius:12px;margin:0 0 16px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:7px 16px;border-bottom:1px solid var(--hair);vertical-align:top}
tbody tr:last-child td{border-bottom:0}
th{font-size:12.5px;font-weight:600;color:var(--soft);vertical-align:bottom}
th.num,td.num{text-align:right;font-variant-numeric:tabular-nums}td.num{white-space:nowrap}
td.code{font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
td{overflow-wrap:break-word}.pairs td:first-child{width:32%}.pairs td:last-child{overflow-wrap:anywhere}
td.strong{font-weight:620}td.soft{color:var(--soft)}
tr.marked td{background:var(--mark)}
details{margin:0 0 16px}summary{cursor:pointer;color:var(--accent);font-size:14px;padding:4px 0 8px}
ul.notes{margin:0 0 16px;padding-left:20px;max-width:80ch}ul.notes li{margin:4px 0}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px;margin:0 0 16px}
.pictures figure{padding:10px 10px 6px}
.pictures img{display:block;width:100%;height:auto;border-radius:6px;background:#fff;image-rendering:auto}
.pictures figcaption{font-size:13px;color:var(--soft);padding:6px 4px 2px}
footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--hair);font-size:13px;color:var(--soft)}
@media (max-width:720px){
main{padding:24px 14px 48px}header h1{font-size:26px}h2{margin-top:36px}
.grid{grid-template-columns:minmax(0,1fr);gap:12px}figure>svg.on-wide{display:none}figure>svg.on-narrow{display:block}
figure{padding:12px 12px 6px}svg text{font-size:16px}svg text.name{font-size:17px}
.figures{grid-template-columns:repeat(2,minmax(0,1fr))}.figures div{padding:12px 14px 10px}.figures b{font-size:20px}
th,td{padding:6px 8px}table{font-size:13px}td.code{font-size:12px}.pictures{grid-template-columns:minmax(0,1fr)}}
@media print{:root{color-scheme:light}body{background:#fff}nav{display:none}figure,.scroll,.figures{break-inside:avoid}}
)css";
}  // namespace trireme::internal
