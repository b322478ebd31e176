#include "gaussian_latent.h"

#include "blocks.h"
#include "normal.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

// The latents of one image that one piece of work takes; a multiple of kNormals.
constexpr int64_t kPiece = kBlock;

GENFAST_INLINE int64_t pieces(int64_t size) { return size ? blocks(size) : 1; }

// Where a piece lies, and the tensors that both passes read, in the arithmetic type; past the last latent they are
// zero.
template <class T>
struct Piece {
  int64_t image, first, count, at;  // at: of its first latent in [B, Z]
  T mean[kPiece], log_variance[kPiece], prior_mean[kPiece], prior_log_variance[kPiece], noise[kPiece];

  template <class S, class Arguments>
  void read(const Arguments& a, int64_t index) {
    image = index / pieces(a.size), first = index % pieces(a.size) * kPiece, at = image * a.size + first;
    count = a.size - first < kPiece ? a.size - first : kPiece;
    read_block(static_cast<const S*>(a.mean) + at, count, mean);
    read_block(static_cast<const S*>(a.log_variance) + at, count, log_variance);
    if (!a.prior_mean) return;
    read_block(static_cast<const S*>(a.prior_mean) + at, count, prior_mean);
    read_block(static_cast<const S*>(a.prior_log_variance) + at, count, prior_log_variance);
  }

  // The noise of draw number s of every latent of the piece.
  template <class Arguments>
  void draw(const Arguments& a, int64_t s) {
    for (int64_t i = 0; i < count; i += kNormals)
      normals<T>(static_cast<uint64_t>(a.seed), static_cast<uint64_t>(a.first_index + image),
                 static_cast<uint32_t>((first + i) / 4), static_cast<uint32_t>(a.first_sample + s), noise + i);
  }
};

// One vector of latents: what the divergence is made of.
template <class T>
struct Divergence {
  Vector<T> ratio, excess, offset, precision;  // log-variances' difference, exp(it) - 1, means' difference

  GENFAST_INLINE Divergence(const Piece<T>& piece, int64_t i, bool standard) {
    const Vector<T> log_variance = held<T>(load(piece.log_variance + i));
    const Vector<T> prior = standard ? broadcast(T(0)) : held<T>(load(piece.prior_log_variance + i));
    offset = standard ? load(piece.mean + i) : load(piece.mean + i) - load(piece.prior_mean + i);
    precision = standard ? broadcast(T(1)) : exponential<T>(-prior);
    ratio = log_variance - prior;
    Vector<T> power, p = reduced_expm1<T>(ratio, power);
    excess = fma(power, p, power - broadcast(T(1)));
  }
  GENFAST_INLINE Vector<T> distance() const { return offset * offset * precision; }
  GENFAST_INLINE Vector<T> nats() const { return broadcast(T(0.5)) * (excess - ratio + distance()); }
};

struct Forward {
  const GaussianLatentForward& a;
  double* sums;  // of the pieces
};

template <class S>
void forward_pieces(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const Forward& job = *static_cast<const Forward*>(context);
  const GaussianLatentForward& a = job.a;
  Piece<T> piece;
  T nats[kPiece];
  for (int64_t index = begin; index < end; ++index) {
    piece.template read<S>(a, index);
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) {
      store(nats + i, Divergence<T>(piece, i, !a.prior_mean).nats());
      store(piece.log_variance + i, exponential<T>(broadcast(T(0.5)) * held<T>(load(piece.log_variance + i))));
    }
    if (a.per_latent) {
      T* kl = static_cast<T*>(a.kl) + piece.at;
      for (int64_t i = 0; i < piece.count; ++i) kl[i] = nats[i];
    } else {
      job.sums[index] = sum_of_block(nats, piece.count);
    }
    for (int64_t s = 0; s < a.samples; ++s) {
      piece.draw(a, s);
      S* z = static_cast<S*>(a.z) + (piece.image * a.samples + s) * a.size + piece.first;
      for (int64_t i = 0; i < piece.count; i += kLanes<T>)
        store(z + i, fma(load(piece.log_variance + i), load(piece.noise + i), load(piece.mean + i)), piece.count - i);
    }
  }
}

template <class S>
void backward_pieces(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const GaussianLatentBackward& a = *static_cast<const GaussianLatentBackward*>(context);
  const Vector<T> zero = broadcast(T(0)), half = broadcast(T(0.5));
  Piece<T> piece;
  T grad_mean[kPiece], grad_spread[kPiece];  // of the mean, and of the deviation
  for (int64_t index = begin; index < end; ++index) {
    piece.template read<S>(a, index);
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) store(grad_mean + i, zero), store(grad_spread + i, zero);
    for (int64_t s = 0; a.grad_z && s < a.samples; ++s) {
      piece.draw(a, s);
      const S* grad = static_cast<const S*>(a.grad_z) + (piece.image * a.samples + s) * a.size + piece.first;
      for (int64_t i = 0; i < piece.count; i += kLanes<T>) {
        const Vector<T> g = load(grad + i, piece.count - i);
        store(grad_mean + i, load(grad_mean + i) + g);
        store(grad_spread + i, fma(g, load(piece.noise + i), load(grad_spread + i)));
      }
    }
    const T* of_kl = static_cast<const T*>(a.grad_kl);
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) {
      const int64_t n = piece.count - i;
      const Divergence<T> divergence(piece, i, !a.prior_mean);
      const Vector<T> lv = load(piece.log_variance + i);
      const Vector<T> spread = exponential<T>(half * held<T>(lv));
      const Vector<T> g = !of_kl ? zero : a.per_latent ? load(of_kl + piece.at + i, n) : broadcast(of_kl[piece.image]);
      const Vector<T> pull = g * divergence.offset * divergence.precision, half_g = half * g;
      store(static_cast<S*>(a.grad_mean) + piece.at + i, load(grad_mean + i) + pull, n);
      const Vector<T> of_variance = fma(half * spread, load(grad_spread + i), half_g * divergence.excess);
      store(static_cast<S*>(a.grad_log_variance) + piece.at + i, is_held<T>(lv) ? zero : of_variance, n);
      if (!a.grad_prior_mean) continue;
      const Vector<T> of_prior = -half_g * (divergence.excess + divergence.distance());
      const bool standard = !a.prior_log_variance;
      const Vector<T> prior = standard ? zero : load(piece.prior_log_variance + i);
      store(static_cast<S*>(a.grad_prior_mean) + piece.at + i, -pull, n);
      store(static_cast<S*>(a.grad_prior_log_variance) + piece.at + i, is_held<T>(prior) ? zero : of_prior, n);
    }
  }
}

template <class S>
int forward(const GaussianLatentForward& a) {
  const int64_t count = pieces(a.size);
  Scratch memory(Scratch::bytes<double>(a.batch * count));
  if (memory.failed()) return kNoMemory;
  Forward job{a, memory.take<double>(a.batch * count)};
  parallel_for(a.batch * count, forward_pieces<S>, &job);
  if (!a.per_latent) add_blocks(job.sums, a.batch, count, static_cast<Arithmetic<S>*>(a.kl));
  return kOk;
}

}  // namespace

int gaussian_latent_forward(const GaussianLatentForward& a) {
  return by_type(a.type, [&](auto s) { return forward<decltype(s)>(a); });
}

int gaussian_latent_backward(const GaussianLatentBackward& a) {
  return by_type(a.type, [&](auto s) {
    GaussianLatentBackward job = a;
    parallel_for(a.batch * pieces(a.size), backward_pieces<decltype(s)>, &job);
    return int{kOk};
  });
}

}  // namespace GENFAST_LEVEL
}  // namespace genfast
