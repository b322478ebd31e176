#include "ops/gated_activation.h"

#include "core/math.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kPiece = 4096;  // elements of one piece of work, or one row if that is more

GENFAST_INLINE int64_t rows_of_piece(int64_t size) { return size < kPiece ? kPiece / size : 1; }

// Calls body(row, first, last) for elements [first, last) of rows: many short rows, or pieces of a long one.
template <class Body>
GENFAST_INLINE void each_piece(int64_t begin, int64_t end, int64_t rows, int64_t size, Body body) {
  const int64_t together = rows_of_piece(size), apart = pieces_of(size, kPiece);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t start = index / apart * together, first = index % apart * kPiece;
    for (int64_t row = start; row < min(start + together, rows); ++row) body(row, first, min(first + kPiece, size));
  }
}
GENFAST_INLINE int64_t pieces(int64_t rows, int64_t size) {
  if (!size) return 0;
  return pieces_of(rows, rows_of_piece(size)) * pieces_of(size, kPiece);
}

template <class S>
void forward_pieces(const GatedActivationForward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  each_piece(begin, end, a.rows, a.size, [&](int64_t row, int64_t first, int64_t last) {
    const S* x = static_cast<const S*>(a.x) + 2 * row * a.size;
    S* y = static_cast<S*>(a.y) + row * a.size;
    for (int64_t i = first; i < last; i += kLanes<T>) {
      const Gate<T> gate(load(x + i, last - i), load(x + a.size + i, last - i));
      store(y + i, gate.tanh * gate.sigmoid, last - i);
    }
  });
}

template <class S>
void backward_pieces(const GatedActivationBackward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Vector<T> one = broadcast(T(1));
  each_piece(begin, end, a.rows, a.size, [&](int64_t row, int64_t first, int64_t last) {
    const S* x = static_cast<const S*>(a.x) + 2 * row * a.size;
    const S* grad_y = static_cast<const S*>(a.grad_y) + row * a.size;
    S* grad_x = static_cast<S*>(a.grad_x) + 2 * row * a.size;
    for (int64_t i = first; i < last; i += kLanes<T>) {
      const Gate<T> gate(load(x + i, last - i), load(x + a.size + i, last - i));
      const Vector<T> weighted = load(grad_y + i, last - i) * gate.sigmoid;
      store(grad_x + i, weighted * (one - gate.tanh * gate.tanh), last - i);
      store(grad_x + a.size + i, weighted * (gate.tanh * (one - gate.sigmoid)), last - i);
    }
  });
}

template <class S>
int forward(const GatedActivationForward& a) {
  use_huge_pages(a.y, a.rows * a.size * static_cast<int64_t>(sizeof(S)));
  return parallel(pieces(a.rows, a.size), [&](int64_t begin, int64_t end) { forward_pieces<S>(a, begin, end); });
}

template <class S>
int backward(const GatedActivationBackward& a) {
  use_huge_pages(a.grad_x, 2 * a.rows * a.size * static_cast<int64_t>(sizeof(S)));
  return parallel(pieces(a.rows, a.size), [&](int64_t begin, int64_t end) { backward_pieces<S>(a, begin, end); });
}

}  // namespace

GENFAST_KERNEL(gated_activation_forward, GatedActivationForward, forward)
GENFAST_KERNEL(gated_activation_backward, GatedActivationBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
