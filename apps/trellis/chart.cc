#include "chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace trellis {
namespace {

constexpr double kLeft = 60, kTop = 50, kWidth = 640, kHeight = 380, kLegend = 190;
// Of colour-blind safe palettes (Tol's bright and muted), then again with dashes.
constexpr const char* kColors[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee",
                                   "#aa3377", "#888888", "#332288", "#882255", "#999933"};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Text(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     Escaped(text));
}

}  // namespace

std::string DrawChart(const std::string& title, const std::string& x_title,
                      const std::vector<std::pair<double, std::string>>& ticks,
                      const std::vector<ChartLine>& lines) {
  double low = HUGE_VAL, high = 0;
  for (const auto& [x, label] : ticks) low = std::min(low, x), high = std::max(high, x);
  const double decades = std::max(std::log(high / low), 1e-9);
  const auto at_x = [&](double x) {
    return kLeft + (low == high ? 0.5 : std::log(x / low) / decades) * kWidth;
  };
  const auto at_y = [](double y) { return kTop + (1 - y) * kHeight; };

  const double width = kLeft + kWidth + kLegend;
  const double height =
      std::max(kTop + kHeight + 60, kTop + 18 * static_cast<double>(lines.size()));
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "fill=\"white\"/>\n",
      width, height);
  svg += Text(kLeft, 24, "start", title) +
         Text(kLeft + kWidth / 2, kTop + kHeight + 44, "middle", x_title);
  const auto line = [&](double x1, double y1, double x2, double y2) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\"/>\n", x1,
        y1, x2, y2);
  };
  for (int percent = 0; percent <= 100; percent += 20) {
    line(kLeft, at_y(percent / 100.0), kLeft + kWidth, at_y(percent / 100.0));
    svg += Text(kLeft - 6, at_y(percent / 100.0) + 4, "end", fmt::format("{} %", percent));
  }
  for (const auto& [x, label] : ticks) {
    line(at_x(x), kTop, at_x(x), kTop + kHeight);
    svg += Text(at_x(x), kTop + kHeight + 20, "middle", label);
  }
  for (size_t i = 0; i < lines.size(); i++) {
    const std::string style = fmt::format(
        "fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}", kColors[i % std::size(kColors)],
        i < std::size(kColors) ? "" : " stroke-dasharray=\"5 3\"");
    svg += "<polyline points=\"";
    for (const auto& [x, y] : lines[i].points)
      svg += fmt::format("{:.1f},{:.1f} ", at_x(x), at_y(y));
    svg += fmt::format("\" {}/>\n", style);
    const double y = kTop + 18 * static_cast<double>(i) + 6, x = kLeft + kWidth + 16;
    svg += fmt::format("<path d=\"M{:.0f} {:.0f}h24\" {}/>\n", x, y, style);
    svg += Text(x + 32, y + 4, "start", lines[i].name);
  }
  return svg + "</svg>\n";
}

}  // namespace trellis
