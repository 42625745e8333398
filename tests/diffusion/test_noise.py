import torch

from lightning_mav.diffusion.noise import NoiseStream, keyed_noise

SHAPE = (3, 8, 6, 6)


def keys(*samples):
    return [("generate", 0, sample, "sr_spatial") for sample in samples]


def test_shared_noise_is_the_same_in_every_frame_and_still_normal():
    noise = NoiseStream.keyed(keys(0, 1)).draw((3, 8, 40, 40), shared_frames=True)
    assert noise.shape == (2, 3, 8, 40, 40)
    assert (noise == noise[:, :, :1]).all()
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert not torch.equal(noise[0], noise[1])


def test_unshared_noise_differs_between_frames():
    noise = NoiseStream.keyed(keys(0)).draw(SHAPE)
    assert not torch.equal(noise[:, :, 0], noise[:, :, 1])


def test_shared_noise_does_not_depend_on_the_number_of_frames():
    long = NoiseStream.keyed(keys(0)).draw(SHAPE, shared_frames=True)
    short = NoiseStream.keyed(keys(0)).draw((3, 2, 6, 6), shared_frames=True)
    assert torch.equal(long[:, :, :2], short)


def test_a_sample_does_not_depend_on_its_neighbours():
    together, alone = NoiseStream.keyed(keys(0, 1, 2)), NoiseStream.keyed(keys(1))
    for _ in range(3):
        assert torch.equal(together.draw(SHAPE)[1:2], alone.draw(SHAPE))


def test_successive_draws_differ_and_repeat_from_the_same_key():
    one, again = NoiseStream.keyed(keys(0)), NoiseStream.keyed(keys(0))
    first, second = one.draw((16,)), one.draw((16,))
    assert not torch.equal(first, second)
    assert torch.equal(first, again.draw((16,))) and torch.equal(second, again.draw((16,)))


def test_keyed_noise_is_a_function_of_the_key():
    noise = keyed_noise([("noise", 1, 5, 9), ("noise", 1, 6, 9), ("noise", 1, 5, 9)], SHAPE)
    assert noise.shape == (3, *SHAPE) and noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
