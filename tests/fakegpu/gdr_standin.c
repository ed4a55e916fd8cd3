// SPDX-License-Identifier: GPL-2.0
/*
 * gdr_standin - stands in for gdrdrv, nvidia_fs and the like: a module of
 * somebody else that uses what nvidia.ko exports.
 *
 * From its loading on nvidia is in use by it, and cannot be unloaded before
 * it. It does nothing else.
 *
 * nvidia.ko is not at hand when this is built, so modpost knows neither the
 * symbol nor its checksum (KBUILD_MODPOST_WARN in the Makefile). Without any
 * checksums, which the build strips, the kernel links it to whatever version of
 * nvidia is loaded and taints itself; depmod finds the dependency by the
 * symbol's name.
 */
#include <linux/module.h>

/* nv-p2p.h; only its address is taken. */
extern int nvidia_p2p_get_pages(void);

static void *volatile uses;

static int __init gdr_standin_init(void)
{
	uses = nvidia_p2p_get_pages;
	return 0;
}

static void __exit gdr_standin_exit(void)
{
}

module_init(gdr_standin_init);
module_exit(gdr_standin_exit);
MODULE_DESCRIPTION("Uses nvidia.ko, as gdrdrv does");
MODULE_LICENSE("GPL");
