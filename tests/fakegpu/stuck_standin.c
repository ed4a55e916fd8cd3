// SPDX-License-Identifier: GPL-2.0
/*
 * stuck_standin - stands in for a module whose exit function does not return (in_exit), or
 * whose init function does not (in_init): from its loading on it uses nvidia.ko, as
 * gdr_standin does (see there).
 */
#include <linux/delay.h>
#include <linux/module.h>

extern int nvidia_p2p_get_pages(void);

static void *volatile uses;

static bool in_init, in_exit = true;
module_param(in_init, bool, 0444);
module_param(in_exit, bool, 0444);

static int __init stuck_standin_init(void)
{
	uses = nvidia_p2p_get_pages;
	if (in_init)
		msleep(3600 * 1000);
	return 0;
}

static void __exit stuck_standin_exit(void)
{
	if (in_exit)
		msleep(3600 * 1000);
}

module_init(stuck_standin_init);
module_exit(stuck_standin_exit);
MODULE_DESCRIPTION("Uses nvidia.ko, and never goes");
MODULE_LICENSE("GPL");
