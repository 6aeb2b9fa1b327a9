"""torchrun as our child: it asks its processes to save and end when whoever watches over it has died."""

import signal
import sys

from storage.parenthood import end_with_parent

__all__ = ["main"]


def main() -> None:
    """Run torchrun with the arguments of this process."""
    end_with_parent(signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
