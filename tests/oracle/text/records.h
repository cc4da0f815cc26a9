// Strings of any bytes in a file: what the test and the reference say to each other.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

inline void WriteRecords(const std::string& path, const std::vector<std::string>& records) {
  std::ofstream out(path, std::ios::binary);
  for (const std::string& record : records) {
    const uint64_t size = record.size();
    out.write(reinterpret_cast<const char*>(&size), sizeof(size));
    out.write(record.data(), static_cast<std::streamsize>(size));
  }
}

// Empty when the file is missing; a record that was cut off is left out.
inline std::vector<std::string> ReadRecords(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<std::string> records;
  uint64_t size = 0;
  while (in.read(reinterpret_cast<char*>(&size), sizeof(size))) {
    std::string record(size, '\0');
    if (!in.read(record.data(), static_cast<std::streamsize>(size))) break;
    records.push_back(std::move(record));
  }
  return records;
}
