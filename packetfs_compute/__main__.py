"""``python -m packetfs_compute`` is the ``packetfs`` command."""

from packetfs_compute.cli import main

if __name__ == "__main__":
    main()
