// A line chart as SVG.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace trellis {

struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x > 0, y from 0 to 1
};

// x on a logarithmic scale with a tick at each of `ticks` (value, label); y in per cent.
std::string DrawChart(const std::string& title, const std::string& x_title,
                      const std::vector<std::pair<double, std::string>>& ticks,
                      const std::vector<ChartLine>& lines);

}  // namespace trellis
