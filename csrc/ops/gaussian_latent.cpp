#include "ops/gaussian_latent.h"

#include "core/blocks.h"
#include "core/normal.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kPiece = kBlock;  // latents of one piece of work

// How the work is cut: into whole images while they fit a piece, else images into blocks of latents.
template <class Arguments>
struct Cut {
  const Arguments& a;
  const bool whole;
  const int64_t images, blocks_of_image, pieces;

  explicit Cut(const Arguments& of)
      : a(of),
        whole(of.size <= kPiece),
        images(whole && of.size ? kPiece / of.size : 1),
        blocks_of_image(whole ? 1 : blocks(of.size)),
        pieces(whole ? pieces_of(of.batch, images) : of.batch * blocks_of_image) {}

  // A normal number costs about four elements of other work.
  int64_t grain() const { return grain_of((whole ? images * a.size : kPiece) * 4 * a.samples); }
};

// Where a piece lies: rows of `width` latents, of which there is only one if it is not the whole image; they are
// contiguous. And the tensors that both passes read, in the arithmetic type; past the last latent they are zero.
template <class T>
struct Piece {
  int64_t index, image, rows, first, width, at, count;  // at: of its first latent in [B, Z]
  T mean[kPiece], log_variance[kPiece], prior_mean[kPiece], prior_log_variance[kPiece], noise[kPiece];

  template <class S, class Arguments>
  void read(const Cut<Arguments>& cut, int64_t number) {
    const Arguments& a = cut.a;
    index = number, image = cut.whole ? index * cut.images : index / cut.blocks_of_image;
    rows = cut.whole ? min(cut.images, a.batch - image) : 1;
    first = cut.whole ? 0 : index % cut.blocks_of_image * kPiece;
    width = min(a.size - first, kPiece);
    at = image * a.size + first, count = rows * width;
    read_block(static_cast<const S*>(a.mean) + at, count, mean);
    read_block(static_cast<const S*>(a.log_variance) + at, count, log_variance);
    if (!a.prior_mean) return;
    read_block(static_cast<const S*>(a.prior_mean) + at, count, prior_mean);
    read_block(static_cast<const S*>(a.prior_log_variance) + at, count, prior_log_variance);
  }

  // body(z, latent, noise, n): n numbers that lie together, for the draws of all images of the piece; z counts in
  // [B, samples, Z], latent in the piece.
  template <class Arguments, class Body>
  void draw(const Arguments& a, const Body& body) {
    NoiseRows rows_of_noise{
        static_cast<uint64_t>(a.seed),   a.first_index + image, a.first_sample, a.samples, 0, 0, width,
        static_cast<uint32_t>(first / 4)};
    const int64_t draws = rows * a.samples, together = width ? kPiece / width : draws;
    for (int64_t r = 0; r < draws; r += together) {
      rows_of_noise.first_row = r, rows_of_noise.rows = min(draws - r, together);
      normals<T>(rows_of_noise, noise);
      const int64_t z = (image * a.samples + r) * a.size + first;
      if (a.samples == 1) {  // rows of latents and of draws are the same
        body(z, r * width, 0, rows_of_noise.rows * width);
        continue;
      }
      for (int64_t i = 0; i < rows_of_noise.rows; ++i)
        body(z + i * a.size, (r + i) / a.samples * width, i * width, width);
    }
  }
};

// One vector of latents: what the divergence is made of.
template <class T>
struct Divergence {
  Vector<T> ratio, excess, offset, precision;  // log-variances' difference, exp(it) - 1, means' difference

  GENFAST_INLINE Divergence(const Piece<T>& piece, int64_t i, bool standard) {
    const Vector<T> log_variance = clamped<T>(load(piece.log_variance + i));
    const Vector<T> prior = standard ? broadcast(T(0)) : clamped<T>(load(piece.prior_log_variance + i));
    offset = standard ? load(piece.mean + i) : load(piece.mean + i) - load(piece.prior_mean + i);
    precision = standard ? broadcast(T(1)) : exponential<T>(-prior);
    ratio = log_variance - prior;
    Vector<T> power, p = reduced_expm1<T>(ratio, power);
    excess = fma(power, p, power - broadcast(T(1)));
  }
  GENFAST_INLINE Vector<T> distance() const { return offset * offset * precision; }
  GENFAST_INLINE Vector<T> nats() const { return broadcast(T(0.5)) * (excess - ratio + distance()); }
};

template <class S>
void forward_pieces(const Cut<GaussianLatentForward>& cut, double* sums, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const GaussianLatentForward& a = cut.a;
  Piece<T> piece;
  T nats[kPiece];
  for (int64_t index = begin; index < end; ++index) {
    piece.template read<S>(cut, index);
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) {
      store(nats + i, Divergence<T>(piece, i, !a.prior_mean).nats());
      store(piece.log_variance + i, exponential<T>(broadcast(T(0.5)) * clamped<T>(load(piece.log_variance + i))));
    }
    if (a.per_latent) {
      T* kl = static_cast<T*>(a.kl) + piece.at;
      for (int64_t i = 0; i < piece.count; ++i) kl[i] = nats[i];
    } else {
      const int64_t to = cut.whole ? piece.image : index;
      for (int64_t r = 0; r < piece.rows; ++r) sums[to + r] = sum_of_terms(nats + r * piece.width, piece.width);
    }
    piece.draw(a, [&](int64_t z, int64_t latent, int64_t noise, int64_t n) {
      S* to = static_cast<S*>(a.z) + z;
      for (int64_t i = 0; i < n; i += kLanes<T>)
        store(to + i,
              fma(load(piece.log_variance + latent + i, n - i), load(piece.noise + noise + i, n - i),
                  load(piece.mean + latent + i, n - i)),
              n - i);
    });
  }
}

template <class S>
void backward_pieces(const Cut<GaussianLatentBackward>& cut, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const GaussianLatentBackward& a = cut.a;
  const Vector<T> zero = broadcast(T(0)), half = broadcast(T(0.5));
  Piece<T> piece;
  T grad_mean[kPiece], grad_spread[kPiece], grad_kl[kPiece];  // grad_spread: of the deviation
  for (int64_t index = begin; index < end; ++index) {
    piece.template read<S>(cut, index);
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) store(grad_mean + i, zero), store(grad_spread + i, zero);
    if (a.grad_z)
      piece.draw(a, [&](int64_t z, int64_t latent, int64_t noise, int64_t n) {
        const S* grad = static_cast<const S*>(a.grad_z) + z;
        for (int64_t i = 0; i < n; i += kLanes<T>) {
          const Vector<T> g = load(grad + i, n - i), e = load(piece.noise + noise + i, n - i);
          store(grad_mean + latent + i, load(grad_mean + latent + i, n - i) + g, n - i);
          store(grad_spread + latent + i, fma(g, e, load(grad_spread + latent + i, n - i)), n - i);
        }
      });
    const T* of_kl = static_cast<const T*>(a.grad_kl);
    for (int64_t r = 0, i = 0; r < piece.rows; ++r) {
      const T of_image = of_kl && !a.per_latent ? of_kl[piece.image + r] : T(0);
      for (; i < (r + 1) * piece.width; ++i) grad_kl[i] = of_kl && a.per_latent ? of_kl[piece.at + i] : of_image;
    }
    for (int64_t i = 0; i < piece.count; i += kLanes<T>) {
      const int64_t n = piece.count - i;
      const Divergence<T> divergence(piece, i, !a.prior_mean);
      const Vector<T> lv = load(piece.log_variance + i), g = load(grad_kl + i, n), half_g = half * g;
      const Vector<T> spread = exponential<T>(half * clamped<T>(lv));
      const Vector<T> pull = g * divergence.offset * divergence.precision;
      store(static_cast<S*>(a.grad_mean) + piece.at + i, load(grad_mean + i) + pull, n);
      const Vector<T> of_variance = fma(half * spread, load(grad_spread + i), half_g * divergence.excess);
      store(static_cast<S*>(a.grad_log_variance) + piece.at + i, is_clamped<T>(lv) ? zero : of_variance, n);
      if (!a.prior_mean) continue;
      const Vector<T> of_prior = -half_g * (divergence.excess + divergence.distance());
      const Vector<T> prior = load(piece.prior_log_variance + i);
      store(static_cast<S*>(a.grad_prior_mean) + piece.at + i, -pull, n);
      store(static_cast<S*>(a.grad_prior_log_variance) + piece.at + i, is_clamped<T>(prior) ? zero : of_prior, n);
    }
  }
}

template <class S>
int forward(const GaussianLatentForward& a) {
  const Cut<GaussianLatentForward> cut(a);
  Scratch memory(Scratch::bytes<double>(a.batch * cut.blocks_of_image));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(a.batch * cut.blocks_of_image);
  parallel(cut.pieces, [&](int64_t begin, int64_t end) { forward_pieces<S>(cut, sums, begin, end); }, cut.grain());
  if (!a.per_latent) add_blocks(sums, a.batch, cut.blocks_of_image, static_cast<Arithmetic<S>*>(a.kl));
  return kOk;
}

template <class S>
int backward(const GaussianLatentBackward& a) {
  const Cut<GaussianLatentBackward> cut(a);
  return parallel(cut.pieces, [&](int64_t begin, int64_t end) { backward_pieces<S>(cut, begin, end); }, cut.grain());
}

}  // namespace

GENFAST_KERNEL(gaussian_latent_forward, GaussianLatentForward, forward)
GENFAST_KERNEL(gaussian_latent_backward, GaussianLatentBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
