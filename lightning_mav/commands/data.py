"""``data``: write the embedded data to disk, as files that are read like a user's own."""


def moving_shapes(out: str, num_images: int = 2000, num_videos: int = 200, size: int = 64, seed: int = 0) -> None:
    """Write captioned images and videos without captions of moving shapes.

    Args:
        out: Folder to write: images/*.jpg with a .txt caption each, videos/*.mp4.
        num_images: Number of images.
        num_videos: Number of videos, 17 seconds each at 30 frames per second.
        size: Height and width in pixels, even.
        seed: Seed of everything that is drawn.
    """
    from pathlib import Path

    from lightning_mav.data.moving_shapes import write_moving_shapes

    write_moving_shapes(Path(out), num_images, num_videos, size, seed)
    print(f"{num_images} images and {num_videos} videos in {out}")


COMMANDS = {"moving_shapes": moving_shapes}
