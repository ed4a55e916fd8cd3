// SPDX-License-Identifier: GPL-2.0
/*
 * nvidia_fs - stands in for GPUDirect Storage before 2.17.5, under its name: it
 * takes six references to the driver and stands in nobody's `holders`.
 *
 * The real one gets them by symbol_get() of six functions of nv-p2p.h, which
 * newer kernels refuse it; here they are references to the module behind the
 * GPU's driver. As there, it does not load without the driver, and gives them
 * back when it goes. busy=1: it is in use itself.
 */
#include <linux/module.h>
#include <linux/pci.h>

#define REFERENCES 6

static struct module *driver;

static int set_busy(const char *val, const struct kernel_param *kp)
{
	static bool busy;
	bool now;

	if (kstrtobool(val, &now))
		return -EINVAL;
	if (now && !busy)
		__module_get(THIS_MODULE);
	if (!now && busy)
		module_put(THIS_MODULE);
	busy = now;
	return 0;
}

static const struct kernel_param_ops busy_ops = { .set = set_busy };
module_param_cb(busy, &busy_ops, NULL, 0200);
MODULE_PARM_DESC(busy, "1: somebody uses it");

static void put(int count)
{
	while (count--)
		module_put(driver);
}

static int __init nvidia_fs_init(void)
{
	struct pci_dev *gpu = pci_get_device(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID, NULL);
	int taken = 0;

	if (gpu && gpu->dev.driver)
		driver = gpu->dev.driver->owner;
	pci_dev_put(gpu);
	if (!driver)
		return -EOPNOTSUPP;
	while (taken < REFERENCES && try_module_get(driver))
		taken++;
	if (taken < REFERENCES) {
		put(taken);
		return -EOPNOTSUPP;
	}
	return 0;
}

static void __exit nvidia_fs_exit(void)
{
	put(REFERENCES);
}

module_init(nvidia_fs_init);
module_exit(nvidia_fs_exit);
MODULE_DESCRIPTION("Uses nvidia.ko without being listed, as the old nvidia_fs does");
MODULE_LICENSE("GPL");
