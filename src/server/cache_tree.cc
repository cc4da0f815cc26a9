#include "server/cache_tree.h"

#include <string>
#include <utility>

#include "api/json_text.h"
#include "server/target.h"

namespace trellis {
namespace {

constexpr uint64_t kUsualNodes = 200, kMaxNodes = 5000;

OrderedJson NodeObject(const TreeView::Node& node, const Service& service, size_t page_bytes) {
  OrderedJson object = {{"id", node.id},
                        {"parent", nullptr},
                        {"scope", node.scope},
                        {"begin", node.begin},
                        {"tokens", node.num_tokens},
                        {"pages", node.num_pages},
                        {"bytes", node.num_pages * page_bytes},
                        {"leases", node.num_leases},
                        {"age", node.age},
                        {"children", node.num_children},
                        {"hidden_children", node.num_hidden}};
  if (node.parent != 0) object["parent"] = node.parent;
  if (!node.tokens.empty()) {
    object["text"] = service.tokenizer->Pieces(node.tokens, SpecialTokens::kParse);
  }
  return object;
}

}  // namespace

Reply CacheTreeReply(const HttpRequest& request, const Caller& caller, const Service& service) {
  ApiResult<uint64_t> limit = QueryNumber(request, "limit", 1, kMaxNodes, kUsualNodes);
  if (!limit.ok()) return ErrorReply(limit.error());
  ApiResult<uint64_t> depth = QueryNumber(request, "depth", 0, kMaxNodes, kMaxNodes);
  if (!depth.ok()) return ErrorReply(depth.error());
  TreeViewOptions options{.max_nodes = limit.value(), .max_depth = depth.value()};
  const std::string salt = QueryValue(request, "cache_salt").value_or("");
  if (caller.OwnsScope(salt)) options.readable_scope = caller.ScopeOf(salt);

  if (!caller.is_admin()) options.scopes = TreeViewOptions::Scopes::kReadable;

  TreeView view;
  PageCacheStats stats;
  service.engine->Inspect([&](const PageCache& cache) {
    view = cache.View(options);
    stats = cache.Stats();
  });
  size_t num_pages_shown = 0;
  OrderedJson shown = OrderedJson::array();
  for (const TreeView::Node& node : view.nodes) {
    num_pages_shown += node.num_pages;
    shown.push_back(NodeObject(node, service, stats.page_bytes));
  }
  OrderedJson own = nullptr;
  if (view.readable_scope != 0) own = view.readable_scope;
  const OrderedJson answer = {
      {"page_tokens", kPageTokens},
      {"page_bytes", stats.page_bytes},
      {"total",
       {{"nodes", view.num_nodes}, {"pages", view.num_pages}, {"leases", stats.num_leases}}},
      {"hidden",
       {{"nodes", view.num_nodes - view.nodes.size()},
        {"pages", view.num_pages - num_pages_shown}}},
      {"own_scope", std::move(own)},
      {"nodes", std::move(shown)}};
  return Reply{.body = ToText(answer)};
}

}  // namespace trellis
