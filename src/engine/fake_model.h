// FakeModel: a Model for tests whose text is wrong whenever a page is.
//
// Its "keys and values" of a row are a hash of the row before it, as read from the page, of the
// token and of the position; its logits hash all rows that the row sees, as read through the page
// table. So a row that is missing, stale, swapped or another request's changes every logit after
// it, and what a request generates can be checked against ReferenceLogits(), which knows tokens
// only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/check.h"
#include "model/model.h"

namespace trellis {

class FakeModel : public Model {
 public:
  explicit FakeModel(size_t context_length = 4096, size_t vocab_size = 101) {
    spec_.architecture = "fake";
    spec_.context_length = context_length;
    spec_.vocab_size = vocab_size;
    spec_.embedding_length = 4;
    layout_ = {.num_layers = 2, .num_kv_heads = 1, .head_dim = 8};
  }

  const ModelSpec& spec() const override { return spec_; }
  PageLayout page_layout() const override { return layout_; }

  // Called with each batch before it is computed, on the engine's thread.
  std::function<void(std::span<const SequenceRows>)> on_forward;
  // What it computes of rows that are run together with one of this token is not a number. Set
  // before the engine runs.
  std::optional<TokenId> breaks_at;

  void Forward(std::span<const SequenceRows> batch, float* logits) override {
    TRELLIS_CHECK(!batch.empty());
    CheckWritablePagesDistinct(batch);
    if (on_forward) on_forward(batch);
    // As in a real model, all rows of a step are written before any is attended to.
    for (const SequenceRows& rows : batch) WriteRows(rows);
    for (const SequenceRows& rows : batch) logits = Attend(rows, logits);
  }

  // The logits after `tokens`, from the tokens alone.
  std::vector<float> ReferenceLogits(std::span<const TokenId> tokens) const {
    uint64_t row = 0, seen = 0;
    for (size_t p = 0; p < tokens.size(); p++) {
      row = RowHash(row, tokens[p], p);
      seen = Mix(seen, row);
    }
    std::vector<float> logits(spec_.vocab_size);
    FillLogits(seen, logits.data());
    return logits;
  }

  // The hidden states of each of `tokens`, from the tokens alone.
  std::vector<std::vector<float>> ReferenceHidden(std::span<const TokenId> tokens) const {
    std::vector<std::vector<float>> hidden;
    uint64_t row = 0, seen = 0;
    for (size_t p = 0; p < tokens.size(); p++) {
      row = RowHash(row, tokens[p], p);
      seen = Mix(seen, row);
      AddHidden(seen, hidden.emplace_back(spec_.embedding_length));
    }
    return hidden;
  }

 private:
  static uint64_t Mix(uint64_t a, uint64_t b) {
    uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  static uint64_t RowHash(uint64_t previous, TokenId token, size_t position) {
    return Mix(Mix(previous, static_cast<uint64_t>(token) + 1), position);
  }
  void FillLogits(uint64_t seen, float* logits) const {
    for (size_t t = 0; t < spec_.vocab_size; t++) {
      logits[t] = static_cast<float>(Mix(seen, t) >> 40) * 0x1p-21f;  // [0, 8)
    }
  }

  static void AddHidden(uint64_t seen, std::span<float> sum) {
    for (size_t d = 0; d < sum.size(); d++)
      sum[d] += static_cast<float>(Mix(seen, d) >> 40) * 0x1p-23f - 1;  // [-1, 1)
  }

  void CheckWritablePagesDistinct(std::span<const SequenceRows> batch) const {
    std::set<const std::byte*> writable;
    for (const SequenceRows& rows : batch) {
      const size_t end = rows.first_position + rows.tokens.size();
      TRELLIS_CHECK(!rows.tokens.empty() && rows.pages.size() >= PagesFor(end));
      TRELLIS_CHECK(end <= spec_.context_length);
      if (rows.first_unwritten >= end) continue;
      const size_t first_page = std::max(rows.first_position, rows.first_unwritten) / kPageTokens;
      for (size_t page = first_page; page < PagesFor(end); page++) {
        TRELLIS_CHECK(writable.insert(rows.pages[page]).second);
      }
    }
  }

  // The hash of a row lies in four elements of V and, transposed, of K, of the last layer.
  uint64_t ReadRow(const SequenceRows& rows, size_t position) const {
    const std::byte* page = rows.pages[position / kPageTokens];
    const size_t row = position % kPageTokens;
    const size_t layer = layout_.num_layers - 1;
    const auto* keys = reinterpret_cast<const uint16_t*>(page + layout_.k_offset(layer, 0));
    const auto* values = reinterpret_cast<const uint16_t*>(page + layout_.v_offset(layer, 0));
    uint64_t hash = 0;
    for (size_t d = 0; d < 4; d++) {
      const uint16_t v = values[layout_.v_index(row, d)], k = keys[layout_.k_index(row, d)];
      if (k != v) return 0xbad;  // a row that was copied in part
      hash |= static_cast<uint64_t>(v) << (16 * d);
    }
    return hash;
  }
  void WriteRow(const SequenceRows& rows, size_t position, uint64_t hash) const {
    std::byte* page = rows.pages[position / kPageTokens];
    const size_t row = position % kPageTokens;
    const size_t layer = layout_.num_layers - 1;
    auto* keys = reinterpret_cast<uint16_t*>(page + layout_.k_offset(layer, 0));
    auto* values = reinterpret_cast<uint16_t*>(page + layout_.v_offset(layer, 0));
    for (size_t d = 0; d < 4; d++) {
      const auto part = static_cast<uint16_t>(hash >> (16 * d));
      values[layout_.v_index(row, d)] = part, keys[layout_.k_index(row, d)] = part;
    }
  }

  void WriteRows(const SequenceRows& rows) const {
    for (size_t i = 0; i < rows.tokens.size(); i++) {
      const size_t position = rows.first_position + i;
      if (position < rows.first_unwritten) continue;
      const uint64_t previous = position == 0 ? 0 : ReadRow(rows, position - 1);
      WriteRow(rows, position, RowHash(previous, rows.tokens[i], position));
    }
  }
  float* Attend(const SequenceRows& rows, float* logits) const {
    uint64_t seen = 0;
    size_t next = 0;
    const bool breaks = breaks_at && std::find(rows.tokens.begin(), rows.tokens.end(),
                                               *breaks_at) != rows.tokens.end();
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    for (const size_t wanted : rows.logit_rows) {
      for (; next <= rows.first_position + wanted; next++) seen = Mix(seen, ReadRow(rows, next));
      if (!rows.hidden_sum.empty()) {
        AddHidden(seen, rows.hidden_sum);
        if (breaks) rows.hidden_sum[0] = kNan;
        continue;
      }
      FillLogits(seen, logits);
      if (breaks) logits[spec_.vocab_size - 1] = kNan;
      logits += spec_.vocab_size;
    }
    return logits;
  }

  ModelSpec spec_;
  PageLayout layout_;
};

}  // namespace trellis
