#pragma once

/*
 * By this every launcher of ours is known, this program and the script that starts Python alike (lowlevel.py has the
 * same two). mark.c puts it into a note, which stands right behind an ELF file's headers.
 */
#define MARK "migrrdma_runtime.oci"
#define MARK_WITHIN 4096 /* it stands in a launcher's first so many bytes */
