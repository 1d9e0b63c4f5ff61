/* Syncs that do nothing and say that all is well: what a disk does that lies, or a program that forgets them. */
int fsync(int file) { (void)file; return 0; }
int fdatasync(int file) { (void)file; return 0; }
